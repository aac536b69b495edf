"""The groups of a sweep's trials: which program each trial belongs to, with which numbers, and where its state is."""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxopt_lite.sweeps.configs import Reading, StaticPart, split
from jaxopt_lite.sweeps.ledger import FAILED, RUNNING, Copy, Ledger
from jaxopt_lite.sweeps.pool import Runner
from jaxopt_lite.sweeps.program import Group, SweepPlan
from jaxopt_lite.train.plan import is_highest_best, watched

__all__ = []


class Snapshot(NamedTuple):
    """All that a sweep needs to resume: arrays to save, and facts about them."""

    arrays: dict[str, Any]
    facts: dict[str, Any]


@dataclasses.dataclass(eq=False)
class Groups:
    """The trials of a ledger by the static part of their configs.

    Attributes:
        trial: the user's function of a config.
        ledger: of the trials; an empty one at the beginning.
        plan: how each trial trains, and the metric that ranks trials.
        devices: on which cohorts run.
        width: of cohorts; None is the usual one.
        keep_on: whether the other trials run on where some fail.
        static: the static part of each trial's config.
        numbers: its traced numbers, float32 [k].
        runners: of the groups that could be made, by static part.
    """

    trial: Callable
    ledger: Ledger
    plan: SweepPlan
    devices: Sequence[Any]
    width: int | None = None
    keep_on: bool = False
    static: list[StaticPart] = dataclasses.field(default_factory=list, init=False)
    numbers: list[np.ndarray] = dataclasses.field(default_factory=list, init=False)
    runners: dict[StaticPart, Runner] = dataclasses.field(default_factory=dict, init=False)
    _stored: dict[tuple, Any] = dataclasses.field(default_factory=dict, init=False)  # data on devices

    def runner(self, trial: int) -> Runner:
        """What runs a trial."""
        return self.runners[self.static[trial]]

    def assign(self, trials: Sequence[int] | np.ndarray) -> None:
        """Find the group and the numbers of trials anew."""
        for trial, config in zip(trials, self.ledger.space.configs(self.ledger.table[trials])):
            static, numbers = split(config)
            self.static[trial : trial + 1], self.numbers[trial : trial + 1] = [static], [numbers]

    def begin(self, trials: list[int]) -> dict[str, Any]:
        """Make the program of a group by the first of its trials whose own numbers are not refused.

        Returns:
            If `trial` raised for the whole group and the other groups run on: a config as `group`, all its `trials`,
            and the `error` for which they failed; else nothing.
        """
        for trial in trials:
            try:
                group = self._group(self.ledger.table[trial])
            except Exception as error:
                if not self.keep_on:
                    raise
                hints = [note.removeprefix("sweep: ") for note in error.__notes__ if note.startswith("sweep: config")]
                message = "; ".join([f"{type(error).__name__}: {error}", *hints])
                if not self._refuses_numbers(trial):
                    self._fail(trials, message)
                    config = self.ledger.space.configs(self.ledger.table[[trial]])[0]
                    return {"group": str(config), "trials": trials, "error": message}
                self._fail([trial], message)
            else:
                self.add(group, self.ledger.table[trial].copy())
                break
        return {}

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
            for text in (f"trial was called with {config}", *static.explain(error), *reading.explain(error)):
                error.add_note(f"sweep: {text}")
            raise

    def _refuses_numbers(self, trial: int) -> bool:
        """Whether the user's function refuses the numbers of a trial: it returns where they are traced."""

        def call(numbers):
            self.trial(self.static[trial].join(numbers))

        with contextlib.suppress(Exception):
            try:
                call(self.numbers[trial])
            except ValueError:
                jax.eval_shape(call, self.numbers[trial])
                return True
        return False

    def add(self, group: Group, row: np.ndarray, width: int | None = None) -> Runner:
        """The runner of a group, a row of whose trials is given; without a width, of the one asked for, or usual."""
        ledger = self.ledger
        ledger.metric = watched("sweep", self.plan.metric or ledger.metric or None, group.shapes.names)
        ledger.highest = is_highest_best("sweep", ledger.metric, self.plan.mode)
        active = zip(ledger.space.dimensions, ledger.space.active(row[None])[0], strict=True)
        ledger.decays |= {d.name for d, is_active in active if is_active and ".".join(d.path) in group.decays}
        trials = self.static.count(group.static)
        runner = Runner(group, row, width or self.width, trials, self.devices, self._stored)
        self.runners[group.static] = runner
        return runner

    def check(self, trials: np.ndarray) -> None:
        """Raise if an optimizer refuses the numbers of a trial, or note that it failed; programs check nothing."""
        for static, runner in self.runners.items():
            own = [i for i in trials.tolist() if self.static[i] == static and self.ledger.running[i]]
            refused = runner.group.out_of_range(np.stack([self.numbers[i] for i in own])) if own else {}
            for i, message in refused.items():
                if not self.keep_on:
                    config = self.ledger.space.configs(self.ledger.table[[own[i]]])[0]
                    raise ValueError(f"sweep: {message}, for trial {own[i]} with {config}: narrow the space")
                self._fail([own[i]], f"ValueError: {message}")

    def _fail(self, trials: Sequence[int], message: str) -> None:
        self.ledger.status[trials] = FAILED
        self.ledger.errors.update(dict.fromkeys(trials, message))

    def copy(self, copies: Sequence[Copy]) -> None:
        """Let trials exploit others' states: all sources are read before any trial is changed."""
        runners = [self.runner(copy.source) for copy in copies]
        states = [runner.pool.read([copy.source]) for runner, copy in zip(runners, copies, strict=True)]
        for copy in copies:
            self.runner(copy.trial).pool.held.pop(copy.trial, None)
            self.ledger.copy(copy)
        changed = np.array([copy.trial for copy in copies], int)
        self.assign(changed)
        self.check(changed)
        for copy, runner, state in zip(copies, runners, states, strict=True):
            if self.static[copy.trial] != runner.group.static:
                raise ValueError("sweep: a copy must keep the static values of its source, which shape its state")
            runner.pool.hold([copy.trial], state)

    def forget(self, least: int = 2) -> None:
        """Once at least `least` ended trials hold states, free all but the best trial's."""
        pools, status = [runner.pool for runner in self.runners.values()], self.ledger.status
        ended = {trial for pool in pools for trial in pool.held if status[trial] != RUNNING}
        if len(ended) >= least:
            best, *others = [trial for trial in self.ledger.ranking().tolist() if trial in ended]
            for trial in others:
                del self.runner(trial).pool.held[trial]
            self.runner(best).pool.settle([best])

    def unread(self) -> dict[str, Any]:
        """The `names` of the dimensions that `trial` never reads, and a `text` that tells what it reads.

        Empty if there are no such dimensions, or some group might read more: one that could not be made, whose reading
        is not known, or that has an option which no trial has.
        """
        space, table = self.ledger.space, self.ledger.table
        pairs = ((runner.row, runner.group.reading) for runner in self.runners.values())
        known = [(row, reading) for row, reading in pairs if reading is not None]
        if not table.size or len(known) < len(set(self.static)):
            return {}
        active, names = space.active(np.array([row for row, _ in known])), []
        for j, dimension in enumerate(space.dimensions):
            axis = dimension.axis
            here = [reading for (_, reading), is_active in zip(known, active[:, j], strict=True) if is_active]
            if not any(reading.has(dimension.path, axis.branches is not None) for reading in here):
                names.append(dimension.name)
            elif axis.options and not axis.traced and not np.isin(range(len(axis.options)), table[:, j]).all():
                return {}
        read, missing = (set().union(*(getattr(r, name) for _, r in known)) for name in ("read", "missing"))
        flat = lambda paths: ", ".join(sorted({".".join(map(str, path)) for path in paths}))
        what = "a dimension" if len(names) == 1 else "dimensions"
        text = f"trial never reads {', '.join(names)}, {what} of the space; it reads {flat(read) or 'nothing'}"
        text += f", and asks for {flat(missing - read)}, which no config has" if missing - read else ""
        return {"names": names, "text": text} if names else {}

    def listed(self, most: int) -> list[StaticPart]:
        """The groups, in the order of their first trials; if they are more than `most`, raise and name the culprit."""
        groups = list(dict.fromkeys(self.static))
        if len(groups) <= most:
            return groups
        static = [d for d in self.ledger.space.dimensions if not d.axis.traced]
        count, name = max((len(np.unique(self.ledger.table[:, d.column])), d.name) for d in static)
        raise ValueError(
            f"sweep: {len(groups)} groups, each of which is compiled, are more than max_groups={most}: {name!r} is "
            f"static and has {count} values here. Give it fewer (choice), trace it (traced=True), or raise max_groups"
        )

    def facts(self) -> list[dict[str, Any]]:
        """What is saved of each group beside its states: label, width, and hashes of programs and data."""
        return [{"label": r.group.static.label, "width": r.width, **r.hashes} for r in self.runners.values()]

    def snapshot(self) -> Snapshot:
        """All that is needed to resume; nothing may be in flight."""
        pools, ledger = {}, self.ledger
        for i, runner in enumerate(self.runners.values()):
            trials = sorted(runner.pool.held)
            leaves = {str(j): leaf for j, leaf in enumerate(runner.pool.read(trials))} if trials else {}
            pools[str(i)] = {"row": runner.row, "trials": np.array(trials, np.int64), "leaves": leaves}
        facts = {"groups": self.facts(), "metric": ledger.metric, "highest": ledger.highest, "trials": len(ledger)}
        errors = {str(trial): error for trial, error in ledger.errors.items()}
        return Snapshot({"ledger": ledger.saved(), "pools": pools}, {**facts, "errors": errors})

    def restore(self, saved: Snapshot) -> None:
        """Resume from a snapshot.

        Raises:
            ValueError: if the data or the program of a group are not what they were.
        """
        ledger, facts = self.ledger, saved.facts
        ledger.restore(saved.arrays["ledger"], {int(trial): error for trial, error in facts["errors"].items()})
        self.assign(np.arange(len(ledger)))
        for i, was in enumerate(facts["groups"]):
            pool = saved.arrays["pools"][str(i)]
            row = np.asarray(pool["row"], np.float64)
            runner = self.add(self._group(row), row, was["width"])
            # Version 0.1.0 kept fewer hashes.
            changed = " and the ".join(what for what, now in runner.hashes.items() if was.get(what, now) != now)
            if changed:
                raise ValueError(
                    f"resume: the {changed} of {was['label']} changed since the sweep was saved; resume with the same "
                    "data, code, backend and versions of JAX and jaxopt_lite, or sweep anew in another directory"
                )
            held = np.asarray(pool["trials"]).tolist()
            runner.pool.hold(held, [np.asarray(pool["leaves"][str(j)]) for j in range(len(pool["leaves"]))])
        ledger.metric, ledger.highest = facts["metric"], facts["highest"]
