"""The sweep as a generator: it yields events and snapshots, and never touches files or the clock.

One *round*: a policy decides which trials are promoted and how far; their cohorts are called until all have come there.
Trials are put into cohorts by group, step and target, in the order of their numbers, and given to the devices in turn;
what a trial computes depends on none of these.
"""

import collections
import dataclasses
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from jaxopt_lite.sweeps.configs import Reading, Static, split
from jaxopt_lite.sweeps.events import Advanced, Decided, Happened, Outcome, Reply, Snapshot, Winner
from jaxopt_lite.sweeps.ledger import FAILED, RUNNING, STOPPED, Copy, Ledger
from jaxopt_lite.sweeps.policies import Policy
from jaxopt_lite.sweeps.pool import Call, Runner, usual_width
from jaxopt_lite.sweeps.program import Group, SweepPlan
from jaxopt_lite.sweeps.samplers import Sampler, propose
from jaxopt_lite.train.plan import is_highest_best, watched

__all__ = []

T = TypeVar("T")
Events = Generator[Any, Reply | None, T]


@dataclasses.dataclass
class Leg:
    """A cohort on its way to its target."""

    static: Static
    trials: np.ndarray
    step: int
    target: int
    device: int = 0


@dataclasses.dataclass
class Engine:
    """A sweep in progress.

    Attributes:
        trial: the user's function of a config.
        ledger: of the trials; an empty one at the beginning.
        plan: how each trial trains, and the metric that ranks trials.
        sampler: decides which configs to try.
        policy: decides which trials are promoted.
        trials: how many there are to be.
        initial: configs that come first.
        width: of cohorts; None is the usual one.
        devices: on which cohorts run.
        max_groups: more groups are an error.
        keep_on: whether the other trials run on where some fail.
        static: the static part of each trial's config.
        numbers: its traced numbers, float32 [k].
        runners: of the groups that could be made, by static part.
    """

    trial: Callable
    ledger: Ledger
    plan: SweepPlan
    sampler: Sampler
    policy: Policy
    trials: int
    initial: Sequence[dict] = ()
    width: int | None = None
    devices: Sequence[Any] = ()
    max_groups: int = 32
    keep_on: bool = False

    def __post_init__(self):
        if jax.config.jax_disable_jit:  # pyright: ignore[reportAttributeAccessIssue]
            raise RuntimeError(
                "sweep: jax.disable_jit is on, but trials run side by side in a compiled program; call it under "
                "`with jax.disable_jit(False):`, and to step through one trial, train it by fit: "
                "`task, optimizer = trial(config)`, `fit(task, optimizer, ...)`"
            )
        self.devices = list(self.devices) or jax.local_devices()
        self.static: list[Static] = []
        self.numbers: list[np.ndarray] = []
        self.runners: dict[Static, Runner] = {}
        self._stored: dict[tuple, Any] = {}  # data on devices, shared by the groups
        self._flying: collections.deque[tuple[Static, Call]] = collections.deque()  # calls, the oldest first
        self._reply = Reply()
        self._announced: set[tuple] = set()
        self._has_told_unread = False

    def run(self) -> Events[Outcome]:
        """Run to the end, or until told to stop."""
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
            ledger.status[ledger.running] = STOPPED
            self._forget()
            if len(ledger) >= self.trials:
                return self._outcome(complete=True)
            yield from self._propose()

    def _tell(self, event: Any) -> Events[None]:
        """Yield an event and note the answer."""
        reply = yield event
        if reply is not None:
            self._reply = reply._replace(save=reply.save or self._reply.save, stop=reply.stop or self._reply.stop)

    # Which trials there are

    def _propose(self) -> Events[None]:
        """Ask the sampler for its next batch of trials."""
        ledger, n = self.ledger, len(self.ledger)
        count = min(self.sampler.batch(ledger.space) or self.trials, self.trials - n)
        scores = ledger.last_scores()
        table = propose(self.sampler, ledger.space, self.plan.seed, n, count, self.initial, ledger.table, scores)
        new = ledger.extend(table)
        self._sort(new)
        groups = list(dict.fromkeys(self.static))
        if len(groups) > self.max_groups:
            raise ValueError(self._too_many(len(groups)))
        for static in groups:
            if static not in self.runners:  # also one that could not be made for the trials before
                yield from self._begin(static, [i for i in new.tolist() if self.static[i] == static])
        self._check(new)
        yield from self._tell(Happened("proposed", {"first": int(new[0]), "count": len(new), "groups": len(groups)}))

    def _sort(self, trials: Sequence[int] | np.ndarray) -> None:
        """Find the group and the numbers of trials anew."""
        for trial, config in zip(trials, self.ledger.space.configs(self.ledger.table[trials])):
            static, numbers = split(config)
            self.static[trial : trial + 1], self.numbers[trial : trial + 1] = [static], [numbers]

    def _begin(self, static: Static, trials: list[int]) -> Events[None]:
        """Make the program of a group by the first of its trials whose own numbers are not refused."""
        for trial in trials:
            try:
                group = self._group(self.ledger.table[trial])
            except Exception as error:
                if not self.keep_on:
                    raise
                hints = [note.removeprefix("sweep: ") for note in error.__notes__ if note.startswith("sweep: config")]
                message = "; ".join([f"{type(error).__name__}: {error}", *hints])
                if isinstance(error, ValueError) and self._can_be_traced(static):
                    self._fail([trial], message)
                    continue
                config = str(self.ledger.space.configs(self.ledger.table[[trial]])[0])
                self._fail(trials, message)
                yield from self._tell(Happened("groupfailed", {"group": config, "trials": trials, "error": message}))
                return
            width = self.width or usual_width(group, self.static.count(static), self.devices[0])
            self._add(group, self.ledger.table[trial].copy(), width)
            return

    def _group(self, row: np.ndarray) -> Group:
        """Call `trial` for a row of the table, and trace what it returns."""
        config = self.ledger.space.configs(row[None])[0]
        reading, (static, numbers) = Reading(), split(config)
        try:
            try:
                return Group(self.trial, static, numbers, self.plan, reading)
            except (TypeError, ValueError):
                if not reading.as_tree:
                    raise
                # jax.tree.map(f, config, other) takes no other class of dicts
                return Group(self.trial, static, numbers, self.plan)
        except Exception as error:
            for text in (f"trial was called with {config}", *reading.explain(error)):
                error.add_note(f"sweep: {text}")
            raise

    def _can_be_traced(self, static: Static) -> bool:
        """Whether `trial` returns where numbers are traced, and so are not checked."""

        def traced(numbers):
            self.trial(static.join(numbers))

        try:
            jax.eval_shape(traced, jax.ShapeDtypeStruct((len(static.names),), np.float32))
        except Exception:
            return False
        return True

    def _add(self, group: Group, row: np.ndarray, width: int) -> Runner:
        """The runner of a group, a row of whose trials is given."""
        ledger = self.ledger
        ledger.metric = watched("sweep", self.plan.metric or ledger.metric or None, group.metrics)
        ledger.highest = is_highest_best("sweep", ledger.metric, self.plan.mode)
        active = ledger.space.active(row[None])[0]
        dimensions = [d for d, is_active in zip(ledger.space.dimensions, active, strict=True) if is_active]
        ledger.decays |= {d.name for d in dimensions if ".".join(d.path) in group.decays}
        members = self.static.count(group.static)
        runner = self.runners[group.static] = Runner(group, row, width, members, self.devices, self._stored)
        return runner

    def _check(self, trials: np.ndarray) -> None:
        """Raise if an optimizer refuses the numbers of a trial, or note that it failed; programs check nothing."""
        for static, runner in self.runners.items():
            members = [i for i in trials.tolist() if self.static[i] == static and self.ledger.running[i]]
            refused = runner.group.out_of_range(np.stack([self.numbers[i] for i in members])) if members else {}
            for i, message in refused.items():
                if not self.keep_on:
                    config = self.ledger.space.configs(self.ledger.table[[members[i]]])[0]
                    raise ValueError(f"sweep: {message}, for trial {members[i]} with {config}: narrow the space")
                self._fail([members[i]], f"ValueError: {message}")

    def _fail(self, trials: Sequence[int], message: str) -> None:
        self.ledger.status[trials] = FAILED
        self.ledger.errors.update(dict.fromkeys(trials, message))

    def _too_many(self, groups: int) -> str:
        """A message that names the dimension that makes so many groups."""
        space = self.ledger.space
        columns = {n: column for n, column in space.columns(self.ledger.table).items() if n not in space.traced}
        counts = {name: len({repr(value) for value in column.tolist()}) for name, column in columns.items()}
        culprit = max(counts, key=lambda name: counts[name])
        return (
            f"sweep: {groups} groups, each of which is traced and compiled, are more than max_groups="
            f"{self.max_groups}: {culprit!r} is static and has {counts[culprit]} values here. Give it fewer values "
            "(choice), make it a traced number (traced=True, if shapes do not depend on it), or raise max_groups"
        )

    def _tell_unread(self) -> Events[None]:
        """Tell once, when all groups are there, which dimensions `trial` never reads.

        Nothing is told while some group might read more: one that could not be made or whose reading is not known, or
        one with an option that no trial has.
        """
        ledger, space, runners = self.ledger, self.ledger.space, list(self.runners.values())
        if self._has_told_unread or len(ledger) < (self.trials if space.static else 1):
            return
        self._has_told_unread = True
        readings = [runner.group.reading for runner in runners if runner.group.reading is not None]
        if not ledger.table.size or len(readings) < len(set(self.static)):
            return
        active, names = space.active(np.array([runner.row for runner in runners])), []
        for j, dimension in enumerate(space.dimensions):
            axis, column = dimension.axis, ledger.table[:, j]
            is_name = getattr(axis, "branches", None) is not None
            here = [reading for reading, is_active in zip(readings, active[:, j], strict=True) if is_active]
            if not any(reading.has(dimension.path, is_name) for reading in here):
                names.append(dimension.name)
            elif axis.options and not axis.traced and len(set(column[~np.isnan(column)])) < len(axis.options):
                return
        read, missing = (set().union(*(getattr(r, name) for r in readings)) for name in ("read", "missing"))
        flat = lambda paths: ", ".join(sorted({".".join(map(str, path)) for path in paths}))
        if names:
            what = "a dimension" if len(names) == 1 else "dimensions"
            text = f"trial never reads {', '.join(names)}, {what} of the space; it reads {flat(read) or 'nothing'}"
            text += f", and asks for {flat(missing - read)}, which no config has" if missing - read else ""
            yield from self._tell(Happened("unread", {"names": names, "text": text}))

    # How far they run

    def _decide(self) -> Events[None]:
        """Ask the policy, and carry out its decision."""
        ledger = self.ledger
        decision = self.policy.decide(ledger)
        if decision.bracket is not None:
            ledger.bracket[:] = decision.bracket
        stopped = np.flatnonzero(decision.stop & ledger.running) if decision.stop is not None else np.empty(0, int)
        ledger.status[stopped] = STOPPED
        if decision.copies:
            self._copy(decision.copies)
        if decision.target is not None:
            running = ledger.running
            ledger.target[running] = np.maximum(decision.target, ledger.step)[running]
        self._forget()
        yield from self._tell(Decided(stopped, decision.copies, int(ledger.pending.sum())))

    def _copy(self, copies: Sequence[Copy]) -> None:
        """Let trials exploit others' states: all sources are read before any trial is changed."""
        sources = [self.static[c.source] for c in copies]
        read = [self.runners[static].pool.read([c.source]) for c, static in zip(copies, sources)]
        for copy in copies:
            self.runners[self.static[copy.trial]].pool.drop([copy.trial])
            self.ledger.copy(copy)
        self._sort(np.array([copy.trial for copy in copies]))
        for copy, state, static in zip(copies, read, sources, strict=True):
            if self.static[copy.trial] != static:
                raise ValueError(
                    "sweep: a copy must keep the static values of its source, whose program made its state"
                )
            self.runners[static].pool.write([copy.trial], state)

    def _forget(self, least: int = 2) -> None:
        """Once at least `least` ended trials hold states, free all but the best trial's."""
        pools = [runner.pool for runner in self.runners.values()]
        ended = [trial for pool in pools for trial in pool.trials if self.ledger.status[trial] != RUNNING]
        if len(ended) >= least:
            place = np.argsort(self.ledger.ranking())
            best = min(ended, key=lambda trial: place[trial])
            for pool in pools:
                pool.drop([trial for trial in ended if trial != best])

    def _advance(self) -> Events[None]:
        """Bring the pending trials to their targets, as many cohorts at a time as there are devices.

        It ends early when the driver wants to save or stop, or a group's cohorts became narrower.
        """
        legs, n, has_room = self._legs(), len(self.devices), True
        for i in range(0, len(legs), n):
            together = legs[i : i + n]
            for device, leg in enumerate(together):
                leg.device = device
            while together and has_room and not self._is_asked:
                for leg in together:
                    has_room = has_room and not self._is_asked and (yield from self._call(leg))
                together = [leg for leg in together if leg.step < leg.target]
        while self._flying:
            yield from self._land()
        if self._is_asked:
            self._reply = self._reply._replace(save=False)
            yield self.snapshot()

    @property
    def _is_asked(self) -> bool:
        """Whether the driver wants to save or stop."""
        return self._reply.save or self._reply.stop

    def _legs(self) -> list[Leg]:
        """Pending trials by group, step and target, in cohorts of at most a width."""
        found: dict[tuple[Static, int, int], list[int]] = {}
        for trial in np.flatnonzero(self.ledger.pending).tolist():
            at = self.static[trial], int(self.ledger.step[trial]), int(self.ledger.target[trial])
            found.setdefault(at, []).append(trial)
        legs = []
        for (static, step, target), trials in found.items():
            width = self.runners[static].width
            legs += [Leg(static, np.array(trials[i : i + width]), step, target) for i in range(0, len(trials), width)]
        return legs

    def _call(self, leg: Leg) -> Events[bool]:
        """Begin the next call of a cohort, and wait for an earlier one; False if a group became narrower."""
        ledger, runner = self.ledger, self.runners[leg.static]
        trials = leg.trials[ledger.running[leg.trials]]  # those not known to have diverged
        every, most = ledger.eval_every, self._reply.points or ledger.points
        points = min((leg.target - leg.step) // every, runner.points, most)
        if len(trials):
            reset = np.isin(trials, [copy.trial for copy in ledger.lineage if copy.reset and copy.step == leg.step])
            try:
                yield from self._announce(leg.static, leg.device)
                numbers = np.stack([self.numbers[trial] for trial in trials])
                call = runner.launch(trials, numbers, leg.step, points, reset, leg.device)
                self._flying.append((leg.static, call))
            except jax.errors.JaxRuntimeError as error:
                yield from self._narrow(leg.static, error)
                return False
        leg.step += points * every
        if len(self._flying) > 2 * len(self.devices):
            return (yield from self._land())
        return True

    def _land(self) -> Events[bool]:
        """Wait for the oldest call, and record what it measured; False if a group became narrower."""
        static, call = self._flying.popleft()
        try:
            curves, finite = self.runners[static].collect(call)
        except jax.errors.JaxRuntimeError as error:
            yield from self._narrow(static, error)
            return False
        alive = self.ledger.running[call.trials]  # the others diverged in the call before
        trials = call.trials[alive]
        self.ledger.record(trials, {name: curve[:, alive] for name, curve in curves.items()}, finite[:, alive])
        if not self.ledger.running[trials].all():
            self._forget(4 * self.runners[static].width)
        yield from self._tell(Advanced(trials, call.step, call.points * self.plan.eval_every))
        return True

    def _narrow(self, static: Static, error: Exception) -> Events[None]:
        """Halve the width where memory did not suffice and nothing has advanced; else raise."""
        runner = self.runners[static]
        if "RESOURCE_EXHAUSTED" not in str(error) or runner.begun or runner.width == 1:
            raise error
        for pair in [pair for pair in self._flying if pair[0] == static]:
            self._flying.remove(pair)
        width = self._add(runner.group, runner.row, runner.width // 2).width
        self._announced = {(other, device) for other, device in self._announced if other != static}
        yield from self._tell(Happened("narrowed", {"group": static.label, "width": width}))

    def _announce(self, static: Static, device: int) -> Events[None]:
        """Compile, and tell so, the first time."""
        if (static, device) not in self._announced:
            self._announced.add((static, device))
            runner, on = self.runners[static], self.devices[device]
            facts = {"group": static.label, "width": runner.width, "device": str(on)}
            facts |= {"trials": self.static.count(static), "state_bytes": runner.group.bytes}
            yield from self._tell(Happened("compiled", {**facts, "temporary_bytes": runner.program.memory_on(on)}))

    # What is kept

    def snapshot(self) -> Snapshot:
        """All that is needed to resume; nothing may be in flight."""
        pools, groups = {}, []
        for i, runner in enumerate(self.runners.values()):
            trials = runner.pool.trials
            leaves = {str(j): leaf for j, leaf in enumerate(runner.pool.read(trials))} if trials else {}
            pools[str(i)] = {"row": runner.row, "trials": np.array(trials, np.int64), "leaves": leaves}
            groups.append({"label": runner.group.static.label, "width": runner.width, **runner.hashes})
        ledger = self.ledger
        facts = {"groups": groups, "metric": ledger.metric, "highest": ledger.highest, "trials": len(ledger)}
        errors = {str(trial): error for trial, error in ledger.errors.items()}
        return Snapshot({"ledger": ledger.saved(), "pools": pools}, {**facts, "errors": errors})

    def restore(self, saved: Snapshot) -> None:
        """Resume from a snapshot.

        Raises:
            ValueError: if the data or the program of a group are not what they were.
        """
        ledger, facts = self.ledger, saved.facts
        ledger.restore(saved.arrays["ledger"], {int(trial): error for trial, error in facts["errors"].items()})
        self._sort(np.arange(len(ledger)))
        for i, was in enumerate(facts["groups"]):
            pool = saved.arrays["pools"][str(i)]
            row = np.asarray(pool["row"], np.float64)
            runner = self._add(self._group(row), row, was["width"])
            # Version 0.1.0 kept fewer hashes.
            changed = [what for what, now in runner.hashes.items() if was.get(what, now) != now]
            if changed:
                raise ValueError(
                    f"resume: the {' and the '.join(changed)} of {was['label']} changed since the sweep was saved, so "
                    "trials would not be comparable; resume with the same data sets, code, JAX version and backend, or "
                    "start a new sweep in another directory"
                )
            trials = np.asarray(pool["trials"]).tolist()
            if trials:
                runner.pool.write(trials, [np.asarray(pool["leaves"][str(j)]) for j in range(len(pool["leaves"]))])
                runner.begun = True
        ledger.metric, ledger.highest = facts["metric"], facts["highest"]

    def _outcome(self, complete: bool) -> Outcome:
        ledger, best = self.ledger, None
        ranked = ledger.ranked()
        if complete and len(ranked):
            number = int(ranked[0])
            runner = self.runners[self.static[number]]
            state = runner.state(number)
            test = runner.test_scores(number, self.numbers[number], int(ledger.step[number]))
            best = Winner(number, state.params, state.model_state, test)
        return Outcome(ledger, best, complete)
