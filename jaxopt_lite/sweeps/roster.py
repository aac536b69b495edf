"""Who is in the sweep: the group and the numbers of each trial, and the runners of the groups."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxopt_lite.sweeps.cohorts import Runner
from jaxopt_lite.sweeps.events import Snapshot
from jaxopt_lite.sweeps.grouping import Reading, Static, split
from jaxopt_lite.sweeps.ledger import FAILED, RUNNING, Copy, Ledger
from jaxopt_lite.sweeps.member import Group, SweepPlan
from jaxopt_lite.sweeps.space import Space

__all__ = []


class Roster:
    """The trials of a ledger as the engine sees them.

    Attributes:
        static: the static part of each trial's config.
        numbers: its traced numbers, float32 [k].
        runners: of the groups that were begun, by static part.
        failed: why the others could not be.
    """

    def __init__(self, trial: Callable, ledger: Ledger, plan: SweepPlan, devices: Sequence[Any]):
        self._trial, self._ledger, self._plan, self._devices = trial, ledger, plan, devices
        self._stored: dict[tuple, Any] = {}
        self.static: list[Static] = []
        self.numbers: list[np.ndarray] = []
        self.runners: dict[Static, Runner] = {}
        self.failed: dict[Static, str] = {}

    @property
    def groups(self) -> list[Static]:
        """The static parts, in the order of their first trials."""
        return list(dict.fromkeys(self.static))

    def members(self, static: Static) -> list[int]:
        """The trials of a group."""
        return [i for i, other in enumerate(self.static) if other == static]

    def sort(self, trials: np.ndarray) -> None:
        """Find the group and the numbers of trials anew."""
        for trial, config in zip(trials, self._ledger.space.configs(self._ledger.table[trials])):
            static, numbers = split(config)
            if trial == len(self.static):
                self.static.append(static)
                self.numbers.append(numbers)
            else:
                self.static[trial], self.numbers[trial] = static, numbers

    def group(self, row: np.ndarray) -> Group:
        """Call `trial` for a row of the table, and trace what it returns."""
        config = self._ledger.space.configs(row[None])[0]
        static, numbers = split(config)

        def made(reading: Reading | None) -> Group:
            group = Group(self._trial, static, numbers, self._plan, reading)
            group.metrics  # noqa: B018  (traces)
            return group

        reading = Reading()
        try:
            try:
                return made(reading)
            except (TypeError, ValueError):
                if not reading.as_tree:
                    raise
                return made(None)  # jax.tree.map(f, config, other) takes no other class of dicts
        except Exception as error:
            error.add_note(f"sweep: trial was called with {config}")
            for text in reading.explain(error):
                error.add_note(f"sweep: {text}")
            raise

    def unread(self) -> tuple[list[str], list[str], list[str]]:
        """What dimensions `trial` reads in no group, what it reads, and what it asked for that is not there.

        Nothing is said while some group might read more: one whose reading is not known, or one with an option that
        no trial has.
        """
        space, table = self._ledger.space, self._ledger.table
        readings = {static: runner.group.reading for static, runner in self.runners.items()}
        known = {static: reading for static, reading in readings.items() if reading is not None}
        if not table.size or set(self.static) - set(known):
            return [], [], []
        rows = np.array([self.runners[static].row for static in known])
        active, unread = space.active(rows), []
        for j, dimension in enumerate(space.dimensions):
            axis, path = dimension.axis, dimension.path
            here = [reading for reading, is_active in zip(known.values(), active[:, j], strict=True) if is_active]
            if not any(reading.has(path, is_name=getattr(axis, "branches", None) is not None) for reading in here):
                unread.append(dimension.name)
            elif (
                axis.options
                and not axis.traced
                and len(np.unique(table[~np.isnan(table[:, j]), j])) < len(axis.options)
            ):
                return [], [], []
        flat = lambda paths: sorted({".".join(map(str, path)) for path in paths})
        read, missing = (set().union(*(getattr(r, name) for r in known.values())) for name in ("read", "missing"))
        return unread, flat(read), flat(missing - read)

    def runner(self, group: Group, row: np.ndarray, width: int) -> Runner:
        """What runs a group in cohorts of a width."""
        return Runner(group, row, width, len(self.members(group.static)), self._devices, self._stored)

    def check(self, trials: np.ndarray, keep_on: bool) -> None:
        """Raise if a number of one of the trials is out of the range that its optimizer allows, or note that it failed.

        Numbers are traced in the programs, where nothing is checked.
        """
        for static, runner in self.runners.items():
            members = [trial for trial in trials if self.static[trial] == static]
            refused = runner.group.out_of_range(np.stack([self.numbers[i] for i in members])) if members else {}
            for i, said in refused.items():
                trial = members[i]
                if not keep_on:
                    config = self._ledger.space.configs(self._ledger.table[[trial]])[0]
                    raise ValueError(f"sweep: {said}, for trial {trial} with {config}: narrow the space")
                self._ledger.status[trial], self._ledger.errors[int(trial)] = FAILED, f"ValueError: {said}"

    def fail(self, trials: np.ndarray) -> None:
        """Note which of the trials are of groups that failed."""
        for trial in trials:
            if self.static[trial] in self.failed:
                self._ledger.status[trial] = FAILED
                self._ledger.errors[int(trial)] = self.failed[self.static[trial]]

    def copy(self, copies: Sequence[Copy]) -> None:
        """Let trials go on from others' states: all sources are read before any trial is changed."""
        read = [self.runners[self.static[c.source]].pool.read([c.source]) for c in copies]
        into = [self.static[c.source] for c in copies]
        for copy in copies:
            for runner in self.runners.values():
                runner.pool.drop([copy.trial])
            self._ledger.copy(copy)
        self.sort(np.array([copy.trial for copy in copies]))
        for copy, state, static in zip(copies, read, into, strict=True):
            if self.static[copy.trial] != static:
                raise ValueError(
                    "sweep: a copy must keep the static values of its source, whose program made its state"
                )
            self.runners[static].pool.write([copy.trial], state)

    def forget(self, least: int = 2) -> None:
        """Free the states of trials that have ended, but for the best one's, if there are as many as that."""
        ended = [t for runner in self.runners.values() for t in runner.pool.trials if self._ledger.status[t] != RUNNING]
        if len(ended) >= least:
            place = np.argsort(self._ledger.ranking())
            best = min(ended, key=lambda trial: place[trial])
            for runner in self.runners.values():
                runner.pool.drop([trial for trial in ended if trial != best])

    def snapshot(self) -> Snapshot:
        """All that is needed to go on from here; nothing may be under way."""
        pools, groups = {}, []
        for i, runner in enumerate(self.runners.values()):
            trials = runner.pool.trials
            leaves = {str(j): leaf for j, leaf in enumerate(runner.pool.read(trials))} if trials else {}
            pools[str(i)] = {"row": runner.row, "trials": np.array(trials, np.int64), "leaves": leaves}
            groups.append({"label": runner.group.label, "width": runner.width, **_hashes(runner)})
        ledger = self._ledger
        facts = {"groups": groups, "metric": ledger.metric, "highest": ledger.highest}
        failed = {str(trial): error for trial, error in ledger.errors.items()}
        return Snapshot({"ledger": ledger.saved(), "pools": pools}, {**facts, "errors": failed, "trials": len(ledger)})

    def restore(self, saved: Snapshot) -> None:
        """Go on from a snapshot.

        Raises:
            ValueError: if the data or the program of a group are not what they were.
        """
        ledger, facts = self._ledger, saved.facts
        ledger.restore(saved.arrays["ledger"], {int(trial): error for trial, error in facts["errors"].items()})
        ledger.metric, ledger.highest = facts["metric"], facts["highest"]
        self.sort(np.arange(len(ledger)))
        for i, was in enumerate(facts["groups"]):
            pool = saved.arrays["pools"][str(i)]
            row = np.asarray(pool["row"], np.float64)
            static = split(ledger.space.configs(row[None])[0])[0]
            runner = self.runners[static] = self.runner(self.group(row), row, was["width"])
            now = _hashes(runner)
            changed = [what for what in now if was.get(what, now[what]) != now[what]]  # 0.1.0 kept fewer of them
            if changed:
                raise ValueError(
                    f"resume: the {' and the '.join(changed)} of {was['label']} changed since the sweep was saved, so "
                    "trials would not be comparable; resume with the same data sets, code, JAX version and backend, or "
                    "begin anew in another directory"
                )
            trials = np.asarray(pool["trials"]).tolist()
            if trials:
                runner.pool.write(trials, [np.asarray(pool["leaves"][str(j)]) for j in range(len(pool["leaves"]))])
                runner.begun = True
        # A trial may have failed alone, for a number out of range: its group has a runner.
        failed = {self.static[trial]: error for trial, error in ledger.errors.items()}
        self.failed = {static: error for static, error in failed.items() if static not in self.runners}


def _hashes(runner: Runner) -> dict[str, str]:
    """Of what must be the same for trials to be comparable."""
    return {**runner.group.test_hashes, "program": runner.program.fingerprint, "data": runner.group.digest}


def too_many(space: Space, table: np.ndarray, groups: int, most: int) -> str:
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
