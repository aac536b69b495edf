"""The sweep as a generator: it yields what happened and what may be saved, and never touches the world.

One *round*: a policy says which trials go on and how far; their cohorts are called until all have come there. Trials
are put into cohorts by group, step and target, in the order of their numbers, and given to the devices in turn; what a
trial computes depends on none of these.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from jaxopt_lite.sweeps.cohorts import Call, usual_width
from jaxopt_lite.sweeps.events import (
    Advanced,
    Compiled,
    Decided,
    GroupFailed,
    Measure,
    Narrowed,
    Outcome,
    Proposed,
    Reply,
    Unread,
    Winner,
)
from jaxopt_lite.sweeps.grouping import Static
from jaxopt_lite.sweeps.ledger import STOPPED, Ledger
from jaxopt_lite.sweeps.member import SweepPlan
from jaxopt_lite.sweeps.policies import Policy
from jaxopt_lite.sweeps.roster import Roster, too_many
from jaxopt_lite.sweeps.samplers import Sampler, propose
from jaxopt_lite.train.plan import is_highest_best, watched

__all__ = []

T = TypeVar("T")
Saying = Generator[Any, Reply | None, T]
Flying = collections.deque[tuple[Static, Call]]  # calls under way, the oldest first


@dataclasses.dataclass
class Leg:
    """A cohort on its way to its target."""

    static: Static
    trials: np.ndarray
    step: int
    target: int
    device: int


@dataclasses.dataclass
class Engine:
    """A sweep under way.

    Attributes:
        trial: the user's function of a config.
        ledger: of the trials; an empty one at the beginning.
        plan: how each trial trains.
        sampler: says which configs to try.
        policy: says which trials go on.
        trials: how many there are to be.
        initial: configs that go first.
        width: of cohorts; None is the usual one, "measure" asks the driver to time them.
        devices: on which cohorts run.
        max_groups: more groups are an error.
        keep_on: whether a group that fails ends the sweep.
        metric: the watched metric, or None for the first of the usual ones; it is put into the ledger.
        mode: "min", "max", or None where the metric's name says it.
    """

    trial: Callable
    ledger: Ledger
    plan: SweepPlan
    sampler: Sampler
    policy: Policy
    trials: int
    initial: Sequence[dict] = ()
    width: int | str | None = None
    devices: Sequence[Any] = ()
    max_groups: int = 32
    keep_on: bool = False
    metric: str | None = None
    mode: str | None = None

    def __post_init__(self):
        if jax.config.jax_disable_jit:  # pyright: ignore[reportAttributeAccessIssue]
            raise RuntimeError(
                "sweep: jax.disable_jit is on, but trials run side by side in a compiled program; call it under "
                "`with jax.disable_jit(False):`, and to step through one trial, train it by fit: "
                "`task, optimizer = trial(config)`, `fit(task, optimizer, ...)`"
            )
        self.devices = list(self.devices) or jax.local_devices()
        self.roster = Roster(self.trial, self.ledger, self.plan, self.devices)
        self._reply = Reply()
        self._reported: set[tuple] = set()
        self._told_unread = False

    def run(self) -> Saying[Outcome]:
        """Go on to the end, or until told to stop."""
        ledger = self.ledger
        while True:
            yield from self._tell_unread()
            while ledger.pending.any():
                yield from self._advance()
                if self._reply.stop:
                    return self._outcome(complete=False)
            if len(ledger):
                yield from self._decide()
            if ledger.pending.any():
                continue
            waiting = np.flatnonzero(ledger.running)
            ledger.status[waiting] = STOPPED
            self.roster.forget()
            if len(ledger) >= self.trials:
                break
            yield from self._propose()
        return self._outcome(complete=True)

    def _say(self, event: Any) -> Saying[None]:
        """Yield an event and note the answer."""
        reply = yield event
        if reply is not None:
            self._reply = reply._replace(save=reply.save or self._reply.save, stop=reply.stop or self._reply.stop)

    def _propose(self) -> Saying[None]:
        """Ask the sampler for its next batch of trials."""
        ledger, n = self.ledger, len(self.ledger)
        count = min(self.sampler.batch(ledger.space) or self.trials, self.trials - n)
        scores = ledger.last_scores()
        table = propose(self.sampler, ledger.space, self.plan.seed, n, count, self.initial, ledger.table, scores)
        new = ledger.extend(table)
        self.roster.sort(new)
        groups = self.roster.groups
        if len(groups) > self.max_groups:
            raise ValueError(too_many(ledger.space, ledger.table, len(groups), self.max_groups))
        for static in groups:
            if static not in self.roster.runners and static not in self.roster.failed:
                yield from self._begin(static)
        self.roster.fail(new)
        self.roster.check(new, self.keep_on)
        yield from self._say(Proposed(new, len(groups)))

    def _tell_unread(self) -> Saying[None]:
        """Tell once, when all groups have begun, which dimensions `trial` never reads."""
        ledger, space = self.ledger, self.ledger.space
        if self._told_unread or len(ledger) < (self.trials if space.static else 1):
            return
        self._told_unread = True
        names, read, missing = self.roster.unread()
        if names:
            what = "a dimension" if len(names) == 1 else "dimensions"
            text = f"trial never reads {', '.join(names)}, {what} of the space; it reads {', '.join(read) or 'nothing'}"
            text += f", and asks for {', '.join(missing)}, which no config has" if missing else ""
            yield from self._say(Unread(names, text))

    def _begin(self, static: Static) -> Saying[None]:
        """Trace what `trial` returns for a group, and find its width."""
        roster, members = self.roster, self.roster.members(static)
        row = self.ledger.table[members[0]].copy()
        try:
            group = roster.group(row)
        except Exception as error:
            if not self.keep_on:
                raise
            hints = [note.removeprefix("sweep: ") for note in error.__notes__ if note.startswith("sweep: config")]
            roster.failed[static] = "; ".join([f"{type(error).__name__}: {error}", *hints])
            config = self.ledger.space.configs(row[None])[0]
            yield from self._say(GroupFailed(str(config), np.array(members), error))
            return
        self._watch(group.metrics)
        usual = usual_width(group, len(members), self.devices[0])
        width = usual if self.width in (None, "measure") else int(self.width)
        if self.width == "measure":
            numbers = np.stack([roster.numbers[i] for i in members])
            widths = tuple(2**i for i in range((4 * usual).bit_length()) if 2**i < 2 * len(members))
            tried = functools.cache(lambda width: roster.runner(group, row, width))
            yield from self._say(Measure(group.label, widths, lambda width: tried(width).try_width(numbers)))
            width = self._reply.width or usual
        roster.runners[static] = roster.runner(group, row, width)

    def _watch(self, known: Sequence[str]) -> None:
        """Find the metric among those that a group measures."""
        metric = watched("sweep", self.metric or self.ledger.metric or None, known)
        self.ledger.metric, self.ledger.highest = metric, is_highest_best("sweep", metric, self.mode)

    def _decide(self) -> Saying[None]:
        """Ask the policy, and do what it says."""
        ledger = self.ledger
        decision = self.policy.decide(ledger)
        running = ledger.running
        if decision.bracket is not None:
            ledger.bracket[:] = decision.bracket
        stopped = np.flatnonzero(decision.stop & running) if decision.stop is not None else np.empty(0, int)
        ledger.status[stopped] = STOPPED
        if decision.copies:
            self.roster.copy(decision.copies)
        if decision.target is not None:
            going = ledger.running
            ledger.target[going] = np.maximum(decision.target, ledger.step)[going]
        self.roster.forget()
        yield from self._say(Decided(stopped, decision.copies, int(ledger.pending.sum())))

    def _advance(self) -> Saying[None]:
        """Bring the pending trials to their targets, as many cohorts at a time as there are devices.

        It ends early when the driver wants to save or stop, or a group's cohorts became narrower.
        """
        flying: Flying = collections.deque()
        cohorts, n, wanted = self._cohorts(), len(self.devices), True
        for i in range(0, len(cohorts), n):
            legs = [Leg(*cohort, device) for device, cohort in enumerate(cohorts[i : i + n])]
            while legs and wanted:
                for leg in legs:
                    wanted = wanted and (yield from self._call(leg, flying)) and not self._asked
                legs = [leg for leg in legs if leg.step < leg.target]
            if not wanted:
                break
        while flying:
            yield from self._land(flying)
        if self._asked:
            self._reply = self._reply._replace(save=False)
            yield self.roster.snapshot()

    @property
    def _asked(self) -> bool:
        """Whether the driver wants to save or stop."""
        return self._reply.save or self._reply.stop

    def _call(self, leg: Leg, flying: Flying) -> Saying[bool]:
        """Begin the next call of a cohort, and wait for an earlier one; False if a group became narrower."""
        ledger, runner = self.ledger, self.roster.runners[leg.static]
        trials = leg.trials[ledger.running[leg.trials]]  # those not known to have diverged
        every, most = ledger.eval_every, self._reply.quanta or ledger.points
        quanta = min((leg.target - leg.step) // every, runner.group.quanta, most)
        if len(trials):
            reset = self._reset(trials, leg.step)
            try:
                yield from self._announce(leg.static, leg.device)
                numbers = np.stack([self.roster.numbers[trial] for trial in trials])
                flying.append((leg.static, runner.launch(trials, numbers, leg.step, quanta, reset, leg.device)))
            except jax.errors.JaxRuntimeError as error:
                yield from self._narrow(leg.static, error, flying)
                return False
        leg.step += quanta * every
        if len(flying) > 2 * len(self.devices):
            return (yield from self._land(flying))
        return True

    def _cohorts(self) -> list[tuple[Static, np.ndarray, int, int]]:
        """Pending trials by group, step and target, in pieces of at most a width."""
        found: dict[tuple[Static, int, int], list[int]] = {}
        steps, targets = self.ledger.step.tolist(), self.ledger.target.tolist()
        for trial in np.flatnonzero(self.ledger.pending).tolist():
            found.setdefault((self.roster.static[trial], steps[trial], targets[trial]), []).append(trial)
        pieces = []
        for (static, step, target), trials in found.items():
            width = self.roster.runners[static].width
            pieces += [(static, np.array(trials[i : i + width]), step, target) for i in range(0, len(trials), width)]
        return pieces

    def _land(self, flying: Flying) -> Saying[bool]:
        """Wait for the oldest call, and write down what it measured; False if a group became narrower."""
        static, call = flying.popleft()
        try:
            curves, finite = self.roster.runners[static].collect(call)
        except jax.errors.JaxRuntimeError as error:
            yield from self._narrow(static, error, flying)
            return False
        alive = self.ledger.running[call.trials]  # the others diverged in the call before
        trials = call.trials[alive]
        self.ledger.record(trials, {name: curve[:, alive] for name, curve in curves.items()}, finite[:, alive])
        if not self.ledger.running[trials].all():
            self.roster.forget(4 * self.roster.runners[static].width)
        yield from self._say(Advanced(trials, call.step, call.quanta * self.plan.eval_every))
        return True

    def _narrow(self, static: Static, error: Exception, flying: Flying) -> Saying[None]:
        """Halve the width where memory did not suffice and nothing has advanced; else raise."""
        runner = self.roster.runners[static]
        if "RESOURCE_EXHAUSTED" not in str(error) or runner.begun or runner.width == 1:
            raise error
        for pair in [pair for pair in flying if pair[0] == static]:
            flying.remove(pair)
        self.roster.runners[static] = self.roster.runner(runner.group, runner.row, runner.width // 2)
        self._reported = {(other, device) for other, device in self._reported if other != static}
        yield from self._say(Narrowed(runner.group.label, runner.width // 2))

    def _announce(self, static: Static, device: int) -> Saying[None]:
        """Compile, and say so, the first time."""
        if (static, device) in self._reported:
            return
        runner, on = self.roster.runners[static], self.devices[device]
        n = len(self.roster.members(static))
        temporary = runner.program.memory_on(on)
        self._reported.add((static, device))
        yield from self._say(Compiled(runner.group.label, runner.width, str(on), n, runner.group.bytes, temporary))

    def _reset(self, trials: np.ndarray, step: int) -> np.ndarray:
        """Which trials were copied at this step, and begin with a new state of the optimizer."""
        anew = {copy.trial for copy in self.ledger.lineage if copy.reset and copy.step == step}
        return np.isin(trials, list(anew))

    def _outcome(self, complete: bool) -> Outcome:
        ledger, best = self.ledger, None
        ranked = ledger.ranked()
        if complete and len(ranked):
            number = int(ranked[0])
            runner = self.roster.runners[self.roster.static[number]]
            state = runner.state(number)
            test = runner.test_scores(number, self.roster.numbers[number], int(ledger.step[number]))
            best = Winner(number, state.params, state.model_state, test)
        return Outcome(ledger, best, complete)
