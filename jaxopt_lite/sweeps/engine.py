"""The sweep as a generator: it yields what happened and what may be saved, and never touches the world.

One *round*: a policy says which trials go on and how far; their cohorts are called until all have come there. Trials
are put into cohorts by group, step and target, in the order of their numbers, and given to the devices in turn; what a
trial computes depends on none of these.
"""

import collections
import dataclasses
import difflib
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from jaxopt_lite.sweeps.cohorts import Runner, usual_width
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
    Snapshot,
    Winner,
)
from jaxopt_lite.sweeps.grouping import Static, split
from jaxopt_lite.sweeps.ledger import FAILED, RUNNING, STOPPED, Copy, Ledger
from jaxopt_lite.sweeps.member import Group, SweepPlan
from jaxopt_lite.sweeps.policies import Policy
from jaxopt_lite.sweeps.samplers import Sampler, propose
from jaxopt_lite.sweeps.space import Space

__all__ = []

T = TypeVar("T")
Saying = Generator[Any, Reply | None, T]


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
        self.devices = list(self.devices) or jax.local_devices()
        self.runners: dict[Static, Runner] = {}
        self.failed: dict[Static, str] = {}
        self._static: list[Static] = []  # of each trial
        self._numbers: list[np.ndarray] = []
        self._stored: dict[tuple, Any] = {}
        self._reply = Reply()
        self._reported: set[tuple] = set()

    def run(self) -> Saying[Outcome]:
        """Go on to the end, or until told to stop."""
        ledger = self.ledger
        while True:
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
            self._forget()
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
        self._sort(new)
        groups = list(dict.fromkeys(self._static))
        if len(groups) > self.max_groups:
            raise ValueError(_too_many(ledger.space, ledger.table, len(groups), self.max_groups))
        for static in groups:
            if static not in self.runners:
                yield from self._begin(static)
        self._fail_known(new)
        yield from self._say(Proposed(new, len(groups)))

    def _sort(self, trials: np.ndarray) -> None:
        """Find the group and the numbers of trials anew."""
        for trial, config in zip(trials, self.ledger.space.configs(self.ledger.table[trials])):
            static, numbers = split(config)
            if trial == len(self._static):
                self._static.append(static)
                self._numbers.append(numbers)
            else:
                self._static[trial], self._numbers[trial] = static, numbers

    def _begin(self, static: Static, width: int | None = None, row: Any = None) -> Saying[None]:
        """Call `trial` for a group and trace what it returns."""
        if static in self.failed:
            return
        members = [i for i, other in enumerate(self._static) if other == static]
        row = self.ledger.table[members[0]].copy() if row is None else row
        numbers = split(self.ledger.space.configs(row[None])[0])[1]
        try:
            group = Group(self.trial, static, numbers, self.plan)
            metrics = group.metrics
        except Exception as error:
            config = self.ledger.space.configs(row[None])[0]
            error.add_note(f"sweep: trial was called with {config}")
            if not self.keep_on:
                raise
            self.failed[static] = f"{type(error).__name__}: {error}"
            yield from self._say(GroupFailed(str(config), np.array(members), error))
            return
        self._watch(metrics)
        candidates = self.width == "measure" and width is None
        usual = usual_width(group, len(members), self.devices[0])
        width = width or (usual if self.width in (None, "measure") else int(self.width))
        make = lambda w: Runner(group, row, w, len(members), self.devices, self._stored)
        if candidates:
            widths = tuple(2**i for i in range(max(1, (2 * usual - 1).bit_length() + 1)))
            together = np.stack([self._numbers[i] for i in members])
            tried: dict[int, Runner] = {}

            def run(w):
                tried.setdefault(w, make(w)).try_width(together)

            yield from self._say(Measure(group.label, widths, run))
            width = self._reply.width or usual
        self.runners[static] = make(width)

    def _watch(self, known: Sequence[str]) -> None:
        """Find the metric among those that a group measures."""
        usual = ("valid.accuracy", "valid.loss", "train.loss")
        metric = self.metric or self.ledger.metric or next(name for name in usual if name in known)
        if metric not in known:
            near = difflib.get_close_matches(metric, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise ValueError(f"sweep: there is no metric {metric!r}; {hint}")
        ends = {"accuracy": "max", "loss": "min"}
        mode = self.mode or next((m for end, m in ends.items() if metric.endswith(end)), None)
        if mode is None:
            raise ValueError(f"sweep: mode must be given for metric={metric!r}: 'min' or 'max'")
        self.ledger.metric, self.ledger.highest = metric, mode == "max"

    def _fail_known(self, trials: np.ndarray) -> None:
        for trial in trials:
            if self._static[trial] in self.failed:
                self.ledger.status[trial] = FAILED
                self.ledger.errors[int(trial)] = self.failed[self._static[trial]]

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
            self._copy(decision.copies)
        if decision.target is not None:
            going = ledger.running
            ledger.target[going] = np.maximum(decision.target, ledger.step)[going]
        self._forget()
        yield from self._say(Decided(stopped, decision.copies, int(ledger.pending.sum())))

    def _copy(self, copies: Sequence[Copy]) -> None:
        """Let trials go on from others' states: all sources are read before any trial is changed."""
        read = [self.runners[self._static[c.source]].pool.read([c.source]) for c in copies]
        into = [self._static[c.source] for c in copies]
        for copy in copies:
            for runner in self.runners.values():
                runner.pool.drop([copy.trial])
            self.ledger.copy(copy)
        self._sort(np.array([copy.trial for copy in copies]))
        for copy, state, static in zip(copies, read, into, strict=True):
            if self._static[copy.trial] != static:
                raise ValueError(
                    "sweep: a copy must keep the static values of its source, whose program made its state"
                )
            self.runners[static].pool.write([copy.trial], state)

    def _forget(self) -> None:
        """Free the states of trials that have ended, but for the best one's."""
        ended = [t for runner in self.runners.values() for t in runner.pool.trials if self.ledger.status[t] != RUNNING]
        if len(ended) > 1 or (ended and self.ledger.running.any()):
            place = np.argsort(self.ledger.ranking())
            best = min(ended, key=lambda trial: place[trial])
            for runner in self.runners.values():
                runner.pool.drop([trial for trial in ended if trial != best])

    def _advance(self) -> Saying[None]:
        """Call each cohort of the pending trials once, unless the driver wants to save or stop."""
        ledger, flying = self.ledger, collections.deque()
        for i, (static, trials) in enumerate(self._cohorts()):
            runner, device = self.runners[static], i % len(self.devices)
            step, target = int(ledger.step[trials[0]]), int(ledger.target[trials[0]])
            quanta = min((target - step) // ledger.eval_every, runner.group.quanta, self._reply.quanta or ledger.points)
            numbers = np.stack([self._numbers[trial] for trial in trials])
            try:
                yield from self._announce(static, device)
                flying.append((static, runner.launch(trials, numbers, step, quanta, self._reset(trials), device)))
            except jax.errors.JaxRuntimeError as error:
                yield from self._narrow(static, error, flying)
                break
            if len(flying) > 2 * len(self.devices):
                yield from self._land(flying)
            if self._reply.save or self._reply.stop:
                break
        while flying:
            yield from self._land(flying)
        if self._reply.save or self._reply.stop:
            self._reply = self._reply._replace(save=False)
            yield self.snapshot()

    def _cohorts(self) -> list[tuple[Static, np.ndarray]]:
        """Pending trials by group, step and target, in pieces of at most a width."""
        found: dict[tuple, list[int]] = {}
        ledger = self.ledger
        for trial in np.flatnonzero(ledger.pending).tolist():
            found.setdefault((self._static[trial], ledger.step[trial], ledger.target[trial]), []).append(trial)
        pieces = []
        for (static, _, _), trials in found.items():
            width = self.runners[static].width
            pieces += [(static, np.array(trials[i : i + width])) for i in range(0, len(trials), width)]
        return pieces

    def _land(self, flying: collections.deque) -> Saying[None]:
        """Wait for the oldest call, and write down what it measured."""
        static, call = flying.popleft()
        try:
            curves, finite = self.runners[static].collect(call)
        except jax.errors.JaxRuntimeError as error:
            yield from self._narrow(static, error, flying)
            return
        self.ledger.record(call.trials, curves, finite)
        if not self.ledger.running[call.trials].all():
            self._forget()
        yield from self._say(Advanced(call.trials, call.step, call.quanta * self.plan.eval_every))

    def _narrow(self, static: Static, error: Exception, flying: collections.deque) -> Saying[None]:
        """Halve the width where memory did not suffice and nothing has advanced; else raise."""
        runner = self.runners[static]
        if "RESOURCE_EXHAUSTED" not in str(error) or runner.begun or runner.width == 1:
            raise error
        for pair in [pair for pair in flying if pair[0] == static]:
            flying.remove(pair)
        self.runners[static] = Runner(runner.group, runner.row, runner.width // 2, 1, self.devices, self._stored)
        self._reported = {(other, device) for other, device in self._reported if other != static}
        yield from self._say(Narrowed(runner.group.label, runner.width // 2))

    def _announce(self, static: Static, device: int) -> Saying[None]:
        """Compile, and say so, the first time."""
        if (static, device) in self._reported:
            return
        runner, on = self.runners[static], self.devices[device]
        n = sum(other == static for other in self._static)
        temporary = runner.program.memory_of(on)
        self._reported.add((static, device))
        yield from self._say(Compiled(runner.group.label, runner.width, str(on), n, runner.group.bytes, temporary))

    def _reset(self, trials: np.ndarray) -> np.ndarray:
        """Which trials were just copied, and begin with a new state of the optimizer."""
        last = {copy.trial: copy for copy in self.ledger.lineage}
        return np.array([t in last and last[t].reset and last[t].step == self.ledger.step[t] for t in trials.tolist()])

    def snapshot(self) -> Snapshot:
        """All that is needed to go on from here; nothing may be under way."""
        pools, groups = {}, []
        for i, runner in enumerate(self.runners.values()):
            trials = runner.pool.trials
            leaves = {str(j): leaf for j, leaf in enumerate(runner.pool.read(trials))} if trials else {}
            pools[str(i)] = {"row": runner.row, "trials": np.array(trials, np.int64), "leaves": leaves}
            facts = {"width": runner.width, "data": runner.group.digest, "program": runner.program.fingerprint}
            groups.append({"label": runner.group.label, **facts})
        ledger = self.ledger
        facts = {"groups": groups, "metric": ledger.metric, "highest": ledger.highest}
        failed = {str(trial): error for trial, error in ledger.errors.items()}
        return Snapshot({"ledger": ledger.saved(), "pools": pools}, {**facts, "errors": failed, "trials": len(ledger)})

    def restore(self, saved: Snapshot) -> None:
        """Go on from a snapshot.

        Raises:
            ValueError: if the data or the program of a group are not what they were.
        """
        ledger, facts = self.ledger, saved.facts
        ledger.restore(saved.arrays["ledger"], {int(trial): error for trial, error in facts["errors"].items()})
        self._sort(np.arange(len(ledger)))
        self.failed = {self._static[trial]: error for trial, error in ledger.errors.items()}
        for i, was in enumerate(facts["groups"]):
            pool = saved.arrays["pools"][str(i)]
            row = np.asarray(pool["row"], np.float64)
            static = split(ledger.space.configs(row[None])[0])[0]
            collections.deque(self._begin(static, was["width"], row), maxlen=0)
            runner = self.runners[static]
            now = {"data": runner.group.digest, "program": runner.program.fingerprint}
            for what, remedy in (("data", "the same data sets"), ("program", "the same code, JAX version and backend")):
                if now[what] != was[what]:
                    raise ValueError(
                        f"resume: the {what} of {was['label']} changed since the sweep was saved (hash {was[what]}, "
                        f"now {now[what]}), so trials would not be comparable; go on with {remedy}, or begin anew in "
                        "another directory"
                    )
            trials = np.asarray(pool["trials"]).tolist()
            if trials:
                runner.pool.write(trials, [np.asarray(pool["leaves"][str(j)]) for j in range(len(pool["leaves"]))])
                runner.begun = True

    def _outcome(self, complete: bool) -> Outcome:
        ledger, best = self.ledger, None
        ranked = ledger.ranking()
        if complete and len(ranked) and np.isfinite(ledger.last_scores()[ranked[0]]):
            number = int(ranked[0])
            runner = self.runners[self._static[number]]
            state = runner.state(number)
            test = runner.test_scores(number, self._numbers[number], int(ledger.step[number]))
            best = Winner(number, state.params, state.model_state, test)
        return Outcome(ledger, best, complete)


def _too_many(space: Space, table: np.ndarray, groups: int, most: int) -> str:
    """Say which dimension makes so many groups."""
    counts = {}
    for name, column in space.columns(table).items():
        if name not in space.traced:
            counts[name] = len({repr(value) for value in column.tolist()})
    culprit = max(counts, key=lambda name: counts[name])
    return (
        f"sweep: {groups} groups, each of which is traced and compiled, are more than max_groups={most}: {culprit!r} "
        f"is static and has {counts[culprit]} values here. Give it fewer values (choice), make it a traced number "
        "(traced=True, if shapes do not depend on it), or raise max_groups"
    )
