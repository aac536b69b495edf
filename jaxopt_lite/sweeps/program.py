"""The program of a group of trials: a cohort of them, each with several seeds, advances by some points.

A *member* is one seed of one trial: `vmap` over seeds of `vmap` over trials of `train.point`. All trials of a cohort
stand at one step, so a seed's minibatch is the same for all of them and is gathered once. Data are arguments of the
program: its text does not grow with them, and one text serves every device.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_lite import tree
from jaxopt_lite.core.arguments import INT32_MAX, check_bool, check_int
from jaxopt_lite.core.hyperparameters import arrays, hyperparameters, parameters_of, replace
from jaxopt_lite.core.numbers import describe
from jaxopt_lite.core.programs import digest
from jaxopt_lite.sweeps.configs import Observed, Reading, StaticPart
from jaxopt_lite.train.plan import Plan
from jaxopt_lite.train.point import Rules, Shapes, begin, measured, point
from jaxopt_lite.train.state import Method, TrainState, accept_method, arrays_for, first_opt_state, first_state
from jaxopt_lite.train.task import Task

__all__ = []

STOPPING = ("target", "patience", "min_grad_norm", "restore_best")  # of a plan: in sweeps, policies stop trials
KEEP, FRESH, RESET = range(3)  # a slot's state is kept; made; kept, except the optimizer's, which is made


@dataclasses.dataclass(frozen=True)
class SweepPlan(Plan):
    """How each trial trains: the arguments of `sweep` that shape the program or the data order."""

    seeds: int = 1
    seed: int = 0
    independent: bool = False

    who = "sweep"
    purpose = "choose among trials: test data are evaluated for the winner alone"

    def __post_init__(self):
        super().__post_init__()
        self._set("seeds", check_int("sweep", "seeds", self.seeds, 1, INT32_MAX))
        self._set("seed", check_int("sweep", "seed", self.seed, 0, 2**32 - self.seeds, why="seeds have 32 bits"))
        self._set("independent", check_bool("sweep", "independent", self.independent))
        if self.steps % (every := self.eval_every):
            near = max(1, round(self.steps / every)) * every
            raise ValueError(f"sweep: steps={self.steps} must be a multiple of eval_every={every}, such as {near}")


class Group:
    """Trials of one static part: what they train, as functions of a member.

    A member's *rows* are its state between two calls: a `TrainState` without optimizer, key and step, which are not its
    own.

    Args:
        trial: the user's function of a config.
        static: the static part of the configs.
        numbers: the numbers of one of them, float32 [k], for the concrete call.
        plan: how each trial trains.
        reading: where to note what `trial` reads of its configs; None for nowhere.

    Attributes:
        task: of the concrete call; its data are those of all trials.
        batch: examples that are drawn for each step; 0 where none are.
        row_shapes: a member's rows; `packed_shapes` as plain arrays, and `bytes` of all seeds.
        shapes: what steps and evaluations measure.
        decays: names of the numbers that reach a decay of the optimizer.

    Raises:
        TypeError, ValueError: if trial returns something else than a task and an optimizer, or its data depend on a
            traced number.
    """

    shapes: Shapes

    def __init__(
        self, trial: Callable, static: StaticPart, numbers: np.ndarray, plan: SweepPlan, reading: Reading | None = None
    ):
        self.trial, self.static, self.numbers, self.plan, self.reading = trial, static, numbers, plan, reading
        self.task, method = self._make(numbers)
        if self.task.train_is_iterator:
            raise TypeError("sweep: the task's train must be arrays (or None); an iterator cannot be shared by trials")
        self.batch = (plan.batch_size or 0) if plan.kind(self.task, method) == "drawn" else 0
        self.data = (self.task.train, self.task.valid)
        self.digest = digest(self.data)
        self._trace()
        self.packed_shapes: list[jax.ShapeDtypeStruct] = jax.eval_shape(pack, self.row_shapes)
        self.bytes = plan.seeds * sum(leaf.size * leaf.dtype.itemsize for leaf in self.packed_shapes)
        if self.task.test is not None:  # what raises at the end is to raise now
            jax.eval_shape(lambda *of: self.test_scores(numbers, 0, *of), self.packed_shapes, KEY, self.task.test)

    def out_of_range(self, numbers: np.ndarray) -> dict[int, str]:
        """Which of some configs' numbers [n, k] the optimizer's rules refuse, each by itself: their messages.

        A check takes up to a millisecond. So many configs are first checked as arrays, each number against its own
        range, and at the corners of the box around them, for what numbers forbid together: limits are monotone. It is
        the box of the optimizer's numbers: those of the config may reach them by any function.
        """
        made = jax.vmap(lambda one: arrays(self._make(one)[1]))(jnp.asarray(numbers))
        leaves, structure = jax.tree.flatten(jax.device_get(made))  # every leaf has the axis of n
        varied = [i for i, leaf in enumerate(leaves) if np.any(leaf != leaf[:1])]
        is_scalar = all(leaves[i].shape == (len(numbers),) and leaves[i].dtype.kind == "f" for i in varied)
        each = lambda leaves: (structure.unflatten(map(np.asarray, one)) for one in zip(*leaves, strict=True))
        if is_scalar and 2 ** len(varied) < len(numbers) and not _refused([structure.unflatten(leaves)]):
            corners = [leaf[: 2 ** len(varied)] for leaf in leaves]
            for i, ends in zip(varied, np.meshgrid(*([leaves[i].min(), leaves[i].max()] for i in varied)), strict=True):
                corners[i] = ends.ravel()
            if not _refused(each(corners)):
                return {}
        return _refused(each(leaves))

    def test_scores(self, numbers: np.ndarray, step: int, packed: list, key: jax.Array, test: Any) -> dict:
        """What is measured of one member on the test data, float32 scalars by name."""
        task, optimizer = self._make(jnp.asarray(numbers))
        rows = unpack(packed, self.row_shapes)
        state = rows._replace(optimizer=arrays_for(optimizer, rows.params), key=key, step=jnp.int32(step))
        return Rules.of(task, self.plan, optimizer, norms=False).score(state, test)

    def _make(self, numbers: Any) -> tuple[Task, Method]:
        """Call the user's function."""
        config = self.static.join(numbers)
        made = self.trial(config if self.reading is None else Observed(config, self.reading))
        if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], Task)):
            got = f"a tuple of {len(made)}" if type(made) is tuple else describe(made)
            raise TypeError(f"sweep: trial must return (task, optimizer), got {got}")
        return made[0], accept_method("sweep", made[1])

    def _trace(self) -> None:
        """Find shapes and decays; raise if data are computed from a traced number, or are not the same each time."""
        order = jax.ShapeDtypeStruct((1, self.batch), jnp.int32) if self.batch else None

        def begun(numbers, key, data, order):
            task, optimizer = self._make(numbers)
            values = hyperparameters(optimizer)
            decays = [values[path] for path, parameter in parameters_of(optimizer).items() if parameter.is_decay]
            state = first_state(task, optimizer, key)
            self.shapes = measured(Rules.of(task, self.plan, optimizer, norms=False), state, data, order)
            return (task.train, task.valid, task.test), decays, _rows_of(state)

        (data, decays, _), (shapes, _, self.row_shapes) = _dependence(begun, self.static.names, KEY, self.data, order)
        self.decays = frozenset().union(*decays)
        for where, reached in zip(("train", "valid", "test"), data, strict=True):
            names = ", ".join(sorted(set().union(*jax.tree.leaves(reached))))
            if names:
                raise ValueError(
                    f"sweep: the task's {where} data depend on a traced number of the config ({names}), but are shared "
                    "by all trials of a group: make it static (a choice), or apply it in the loss"
                )
        was = (self.task.train, self.task.valid, self.task.test)
        was, now = [jax.tree.map(lambda x: (x.shape, x.dtype.name), data) for data in (was, shapes)]
        if was != now:
            raise ValueError(f"sweep: trial must return the same data each time, got {was}, then {now}")

    def _refresh(self, task: Task, optimizer: Method, mode: Any, rows: TrainState, key: jax.Array) -> TrainState:
        """A member's rows, made anew where that is asked for."""
        opt_state = first_opt_state(task, arrays_for(optimizer, rows.params), rows.params, key)
        kept = tree.where(mode == RESET, rows._replace(opt_state=opt_state), rows)
        return tree.where(mode == FRESH, _rows_of(first_state(task, optimizer, key)), kept)

    def _member(self, most, packed, numbers, mode, any_new, key, order, data, step, n) -> tuple[list, dict, jax.Array]:
        """Advance one member by n points of at most `most`; curves float32 by name, and whether it was finite, bool."""
        task, optimizer = self._make(numbers)
        rows = unpack(packed, self.row_shapes)
        fresh = lambda rows: self._refresh(task, optimizer, mode, rows, key)
        rows = jax.lax.cond(any_new, fresh, lambda rows: rows, rows)
        state = rows._replace(optimizer=arrays_for(optimizer, rows.params), key=key, step=step)
        rules = Rules.of(task, self.plan, optimizer, norms=False)

        def advance(i, loop):
            run, curves, finite = loop
            run, row = point(rules, run, data, order[i], self.plan.eval_every, True, None)
            curves = {name: curve.at[i].set(row[name]) for name, curve in curves.items()}
            return run, curves, finite.at[i].set(row["finite"])

        blank = {name: jnp.zeros(most, jnp.float32) for name in self.shapes.names}
        loop = begin(rules, state, self.shapes, monitored=False), blank, jnp.zeros(most, bool)
        run, curves, finite = jax.lax.fori_loop(0, n, advance, loop)
        return pack(_rows_of(run.state)), curves, finite

    def cohort(self, most, packed, numbers, mode, data, order, keys, step, n) -> tuple[list, dict, jax.Array]:
        """Advance a cohort, its members side by side. This is the program of the group.

        Args:
            most: points of the longest call.
            packed: the states, as `pack` leaves them, [width, seeds, ...].
            numbers: the traced numbers of each slot, float32 [width, k].
            mode: KEEP, FRESH or RESET, for each slot.
            data: (train, valid).
            order: the examples of each step, int32 [(width,) seeds, most, eval_every, batch].
            keys: of the runs, [(width,) seeds].
            step: where the cohort stands.
            n: points of this call.

        Returns:
            The packed states, curves float32 [points, width, seeds] by name, and whether loss and parameters of all
            seeds were finite, bool [points, width]; the later points of a short call are not filled.
        """
        any_new, own = jnp.any(mode != KEEP), self.plan.independent  # own: each trial has keys and an order

        def member(packed, numbers, mode, key, order):
            return self._member(most, packed, numbers, mode, any_new, key, order, data, step, n)

        over_seeds = jax.vmap(member, in_axes=(0, None, None, 0, 0))
        over_slots = jax.vmap(over_seeds, in_axes=(0, 0, 0, *((0, 0) if own else (None, None))))
        packed, curves, finite = over_slots(packed, numbers, mode, keys, order)
        curves = {name: jnp.moveaxis(curve, -1, 0) for name, curve in curves.items()}
        return packed, curves, jnp.moveaxis(finite.all(axis=1), -1, 0)


def _refused(optimizers: Iterable[Method]) -> dict[int, str]:
    """Which of some optimizers, made anew from concrete numbers, their rules refuse: their messages."""
    found = {}
    for i, optimizer in enumerate(optimizers):
        values = hyperparameters(optimizer)
        try:
            replace(optimizer, {name: x for name, x in values.items() if jnp.issubdtype(x.dtype, jnp.floating)})
        except ValueError as error:
            found[i] = str(error)
    return found


def _dependence(function: Callable, names: Sequence[str], *others: Any) -> tuple[Any, Any]:
    """For each array that a function of numbers and others returns, on which numbers it depends, and its shape."""
    numbers = (jax.ShapeDtypeStruct((), jnp.float32),) * len(names)
    traced, shapes = jax.make_jaxpr(function, return_shape=True)(numbers, *others)
    reached = {variable: {name} for variable, name in zip(traced.jaxpr.invars, names)}
    of = lambda v: set() if hasattr(v, "val") else reached.get(v, set())
    for equation in traced.jaxpr.eqns:
        found = set().union(*map(of, equation.invars))
        reached.update(dict.fromkeys(equation.outvars, found))
    return jax.tree.unflatten(jax.tree.structure(shapes), map(of, traced.jaxpr.outvars)), shapes


def _rows_of(state: TrainState) -> TrainState:
    return state._replace(optimizer=None, key=None, step=None)


def pack(rows: TrainState) -> list:
    """The leaves of a member's rows, random keys as their words."""
    return [jax.random.key_data(leaf) if tree.is_random_key(leaf) else leaf for leaf in jax.tree.leaves(rows)]


def unpack(packed: list, like: TrainState) -> TrainState:
    """The inverse of `pack`, given shapes of the rows."""
    leaves, structure = jax.tree.flatten(like)
    impl = lambda shape: jax.random.key_impl(jnp.empty((), shape.dtype))  # it takes arrays only
    wrap = lambda x, shape: jax.random.wrap_key_data(x, impl=impl(shape)) if tree.is_random_key(shape) else x
    return jax.tree.unflatten(structure, [wrap(x, shape) for x, shape in zip(packed, leaves, strict=True)])


def run_key(seed: Any, trial: int | None = None) -> jax.Array:
    """The key of a run, that of `fit` under JAX's usual settings; or one that a trial has for itself.

    It is of one kind whatever those settings are: from keys of the kind "rbg", what a run draws under vmap would depend
    on its neighbours.
    """
    key = jax.random.key(seed, impl="threefry2x32")
    return key if trial is None else jax.random.fold_in(key, trial)


KEY = jax.eval_shape(lambda: run_key(0))
