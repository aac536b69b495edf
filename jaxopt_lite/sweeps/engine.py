"""The sweep as a generator: it yields events and snapshots, and never touches files or the clock.

One *round*: a policy decides which trials are promoted and how far; their cohorts are called until all have come there.
Trials are put into cohorts by group, step and target, in the order of their numbers, and given to the devices in turn;
what a trial computes depends on none of these.
"""

import collections
import dataclasses
from collections.abc import Generator, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxopt_lite.sweeps.groups import Groups
from jaxopt_lite.sweeps.ledger import STOPPED, Ledger
from jaxopt_lite.sweeps.policies import Policy
from jaxopt_lite.sweeps.pool import Runner, Winner
from jaxopt_lite.sweeps.samplers import Sampler
from jaxopt_lite.train.calls import fetched

__all__ = []


class Happened(NamedTuple):
    """Something to note in the log.

    Attributes:
        what: "proposed" (trials were added), "decided" (by the policy: trials that it stopped, copies as trial, source
            and step, and how many trials have steps to do), "compiled", "narrowed" (the memory did not suffice, so
            cohorts of a group are narrower; none of its states had advanced), "groupfailed" (`trial` raised), or
            "unread" (dimensions of the space that `trial` reads in no group).
        facts: by name.
    """

    what: str
    facts: dict[str, Any]


class Advanced(NamedTuple):
    """A call of a program has ended: some trials advanced by at most `steps`; `ledger.step` has how far."""

    trials: np.ndarray
    steps: int


class Reply(NamedTuple):
    """What a driver may answer to any event.

    Attributes:
        save: yield a `Snapshot` as soon as nothing is in flight.
        stop: end, after a `Snapshot`.
        points: the most points of a call from now on.
    """

    save: bool = False
    stop: bool = False
    points: int | None = None


class Outcome(NamedTuple):
    """The result of a sweep; complete is False where it was stopped before its end."""

    ledger: Ledger
    best: Winner | None
    complete: bool


Events = Generator[Any, Reply | None, Any]


@dataclasses.dataclass
class Leg:
    """A cohort on its way from a step to a target in one call or several; or one such call, of those that run."""

    runner: Runner
    trials: np.ndarray
    step: int
    target: int


@dataclasses.dataclass
class Engine:
    """A sweep in progress.

    Attributes:
        groups: of the trials; empty at the beginning.
        sampler: decides which configs to try.
        policy: decides which trials are promoted.
        trials: how many there are to be.
        initial: configs that come first.
        max_groups: more groups are an error.
        ledger: of the trials.
    """

    groups: Groups
    sampler: Sampler
    policy: Policy
    trials: int
    initial: Sequence[dict] = ()
    max_groups: int = 32

    def __post_init__(self):
        if jax.config.jax_disable_jit:  # pyright: ignore[reportAttributeAccessIssue]
            raise RuntimeError(
                "sweep: jax.disable_jit is on, but trials run side by side in a compiled program; call it under "
                "`with jax.disable_jit(False):`, and step through one trial by `fit(*trial(config), ...)`"
            )
        self.ledger = self.groups.ledger
        # Calls in flight and what they measure, the oldest first.
        self._flying: collections.deque[tuple[Leg, list]] = collections.deque()
        self._reply = Reply()

    def run(self) -> Events:
        """Run to the end, or until told to stop; it returns an `Outcome`."""
        ledger, has_told = self.ledger, False
        while True:
            if not has_told and len(ledger) >= (self.trials if ledger.space.static else 1):  # all groups are there
                has_told = True
                if facts := self.groups.unread():
                    yield from self._tell(Happened("unread", facts))
            while ledger.pending.any():
                yield from self._advance()
                if self._reply.stop:
                    return self._outcome(complete=False)
            if len(ledger):
                yield from self._decide()
            if ledger.pending.any():
                continue
            ledger.status[ledger.running] = STOPPED
            self.groups.forget()
            if len(ledger) >= self.trials:
                return self._outcome(complete=True)
            yield from self._propose()

    def _tell(self, event: Any) -> Events:
        """Yield an event and note the answer."""
        reply = yield event
        if reply is not None:
            self._reply = reply._replace(save=reply.save or self._reply.save, stop=reply.stop or self._reply.stop)

    def _propose(self) -> Events:
        """Ask the sampler for its next batch of trials."""
        ledger, n = self.ledger, len(self.ledger)
        count = min(self.sampler.batch(ledger.space) or self.trials, self.trials - n)
        so_far = ledger.table, ledger.last_scores()
        new = ledger.extend(self.sampler.propose(ledger.space, ledger.seed, n, count, self.initial, *so_far))
        self.groups.assign(new)
        groups = self.groups.listed(self.max_groups)
        for static in groups:
            if static not in self.groups.runners:  # also one that could not be made for the trials before
                trials = [i for i in new.tolist() if self.groups.static[i] == static]
                if facts := self.groups.begin(trials):
                    yield from self._tell(Happened("groupfailed", facts))
        self.groups.check(new)
        yield from self._tell(Happened("proposed", {"first": int(new[0]), "count": len(new), "groups": len(groups)}))

    def _decide(self) -> Events:
        """Ask the policy, and carry out its decision."""
        ledger = self.ledger
        decision = self.policy.decide(ledger)
        ledger.bracket[:] = decision.bracket
        stopped = np.flatnonzero(decision.stop & ledger.running)
        ledger.status[stopped] = STOPPED
        self.groups.copy(decision.copies)
        running = ledger.running
        ledger.target[running] = np.maximum(decision.target, ledger.step)[running]
        self.groups.forget()
        facts = {"stopped": stopped, "copies": [copy[:3] for copy in decision.copies]}
        yield from self._tell(Happened("decided", {**facts, "pending": int(ledger.pending.sum())}))

    def _advance(self) -> Events:
        """Bring the pending trials to their targets, as many cohorts at a time as there are devices.

        It ends early when the driver wants to save or stop, or a group's cohorts became narrower.
        """
        for leg, device in self._in_turn(self._legs()):
            if self._reply.save or self._reply.stop or leg.runner not in self.groups.runners.values():
                break
            yield from self._call(leg, device)
        while self._flying:
            yield from self._land()
        if self._reply.save or self._reply.stop:
            self._reply = self._reply._replace(save=False)
            yield self.groups.snapshot()

    def _in_turn(self, legs: list[Leg]) -> Iterator[tuple[Leg, Any]]:
        """The cohort of the next call, and its device."""
        n = len(self.groups.devices)
        for i in range(0, len(legs), n):
            together = list(zip(legs[i : i + n], self.groups.devices))
            while any(leg.step < leg.target for leg, _ in together):
                yield from ((leg, device) for leg, device in together if leg.step < leg.target)

    def _legs(self) -> list[Leg]:
        """Pending trials by group, step and target, in cohorts of at most a width."""
        found: dict[tuple[Runner, int, int], list[int]] = {}
        steps, targets = self.ledger.step.tolist(), self.ledger.target.tolist()
        for trial in np.flatnonzero(self.ledger.pending).tolist():
            found.setdefault((self.groups.runner(trial), steps[trial], targets[trial]), []).append(trial)
        return [
            Leg(runner, np.array(trials[i : i + runner.width]), step, target)
            for (runner, step, target), trials in found.items()
            for i in range(0, len(trials), runner.width)
        ]

    def _call(self, leg: Leg, device: Any) -> Events:
        """Begin the next call of a cohort, and wait for an earlier one."""
        ledger, runner, every = self.ledger, leg.runner, self.ledger.eval_every
        trials = leg.trials[ledger.running[leg.trials]]  # those not known to have diverged
        points = min((leg.target - leg.step) // every, runner.points, self._reply.points or ledger.points)
        call = Leg(runner, trials, leg.step, leg.step + points * every)
        if len(trials):
            copies = {copy.trial: copy for copy in ledger.lineage if copy.step == leg.step}  # the latest of each trial
            reset = np.isin(trials, [trial for trial, copy in copies.items() if copy.reset])
            try:
                yield from self._announce(runner, device)
                numbers = np.stack([self.groups.numbers[trial] for trial in trials])
                self._flying.append((call, runner.launch(trials, numbers, leg.step, points, reset, device)))
            except jax.errors.JaxRuntimeError as error:
                yield from self._narrow(runner, error)
        leg.step = call.target
        if len(self._flying) > 2 * len(self.groups.devices):
            yield from self._land()

    def _land(self) -> Events:
        """Wait for the oldest call, and record what it measured."""
        call, measured = self._flying.popleft()
        ledger, runner = self.ledger, call.runner
        try:
            curves, finite = fetched(measured)
        except jax.errors.JaxRuntimeError as error:
            return (yield from self._narrow(runner, error))
        alive = np.flatnonzero(ledger.running[call.trials])  # the others diverged in the call before
        trials, points = call.trials[alive], (call.target - call.step) // ledger.eval_every
        ledger.record(trials, {name: curve[:points, alive] for name, curve in curves.items()}, finite[:points, alive])
        waiting = trials[ledger.step[trials] == ledger.target[trials]]
        if 0 < len(waiting) < runner.width:  # empty slots would take memory as long as they wait
            runner.pool.settle(waiting.tolist())
        if not ledger.running[trials].all():
            self.groups.forget(4 * runner.width)
        yield from self._tell(Advanced(trials, call.target - call.step))

    def _narrow(self, runner: Runner, error: Exception) -> Events:
        """Halve the width where memory did not suffice and no trial of the group has advanced; else raise."""
        has_advanced = self.ledger.step[[static == runner.group.static for static in self.groups.static]].any()
        if "RESOURCE_EXHAUSTED" not in str(error) or has_advanced or runner.width == 1:
            raise error
        self._flying = collections.deque(pair for pair in self._flying if pair[0].runner is not runner)
        width = self.groups.add(runner.group, runner.row, runner.width // 2).width
        yield from self._tell(Happened("narrowed", {"group": runner.group.static.label, "width": width}))

    def _announce(self, runner: Runner, device: Any) -> Events:
        """Compile, and tell so, the first time."""
        if device not in runner.compiled:
            runner.compiled.add(device)
            group, trials = runner.group, self.groups.static.count(runner.group.static)
            facts = {"group": group.static.label, "width": runner.width, "device": str(device), "trials": trials}
            facts |= {"state_bytes": group.bytes}
            yield from self._tell(Happened("compiled", {**facts, "temporary_bytes": runner.program.memory_on(device)}))

    def _outcome(self, complete: bool) -> Outcome:
        ledger, best, ranked = self.ledger, None, self.ledger.ranked().tolist()
        if complete and ranked:
            numbers, step = self.groups.numbers[ranked[0]], int(ledger.step[ranked[0]])
            best = self.groups.runner(ranked[0]).result(ranked[0], numbers, step)
        return Outcome(ledger, best, complete)
