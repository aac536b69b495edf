"""The program of a group of trials: a cohort of them, each with several seeds, advances by some points.

A *member* is one seed of one trial: `vmap` over seeds of `vmap` over trials of `train.point`. All trials of a cohort
stand at one step, so a seed's minibatch is the same for all of them and is gathered once. Data are arguments of the
program: its text does not grow with them, and one text serves every device.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_lite import tree
from jaxopt_lite.core.arguments import INT32_MAX, check_bool, check_int
from jaxopt_lite.core.hyperparameters import arrays, hyperparameters, parameters_of, replace
from jaxopt_lite.core.method import Solver
from jaxopt_lite.core.numbers import describe
from jaxopt_lite.core.programs import Program, digest
from jaxopt_lite.sweeps.configs import Observed, Reading, StaticPart
from jaxopt_lite.train.plan import SAVING, Plan
from jaxopt_lite.train.point import Rules, Shapes, begin, measured, point
from jaxopt_lite.train.state import Method, TrainState, accept_method, arrays_for, first_opt_state, first_state
from jaxopt_lite.train.task import Task

__all__ = []

STOPPING = ("target", "patience", "min_grad_norm", "restore_best")  # of a plan: in sweeps, policies stop trials
KEEP, FRESH, RESET = range(3)  # a slot's state is kept; made; kept, except the optimizer's, which is made
_INDICES = 2**22  # of examples that go to the device in one call


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
        if self.steps % self.eval_every:
            every = self.eval_every
            near = max(1, round(self.steps / every)) * every
            raise ValueError(f"sweep: steps={self.steps} must be a multiple of eval_every={every}, such as {near}")


class Rows(NamedTuple):
    """The state of a member between two calls."""

    params: Any
    opt_state: Any
    model_state: Any


class Group:
    """Trials of one static part: what they train, and their program for a width.

    Args:
        trial: the user's function of a config.
        static: the static part of the configs.
        numbers: the numbers of one of them, float32 [k], for the concrete call.
        plan: how each trial trains.
        reading: where to note what `trial` reads of its configs; None for nowhere.

    Attributes:
        task: of the concrete call; its data are those of all trials.
        examples: training examples of which batches are drawn; None where none are.
        row_shapes: a member's state; `packed_shapes` as plain arrays, and `bytes` of all seeds.
        shapes: what steps and evaluations measure; `metrics` are the names of the curves.
        decays: names of the numbers that reach a decay of the optimizer.

    Raises:
        TypeError, ValueError: if trial returns something else than a task and an optimizer, or its data depend on a
            traced number.
    """

    shapes: Shapes

    def __init__(
        self, trial: Callable, static: StaticPart, numbers: np.ndarray, plan: SweepPlan, reading: Reading | None = None
    ):
        self.trial, self.static, self.plan, self._first, self.reading = trial, static, plan, numbers, reading
        with self._explained():
            self.task, method = self._make(numbers)
        if self.task.train_is_iterator:
            raise TypeError("sweep: the task's train must be arrays (or None); an iterator cannot be shared by trials")
        batch = plan.batch_size
        self.examples = None if batch is None else self.task.rows
        if self.examples is not None and batch is not None and batch > self.examples:
            many = f"the {self.examples} training examples of {static.label}"
            raise ValueError(f"sweep: batch_size={batch} is more than {many}")
        if isinstance(method, Solver) and self.examples is not None:
            name = method.factory.spec.name
            raise ValueError(f"sweep: {name} is a solver, which needs all examples at each step; give batch_size=None")
        self.data = (self.task.train, self.task.valid)
        self.digest = digest(self.data)
        with self._explained():
            self._trace()
        self.metrics = tuple(sorted(self.shapes.names))
        self.packed_shapes: list[jax.ShapeDtypeStruct] = jax.eval_shape(pack, self.row_shapes)
        self.bytes = plan.seeds * sum(leaf.size * leaf.dtype.itemsize for leaf in self.packed_shapes)

    def out_of_range(self, numbers: np.ndarray) -> dict[int, str]:
        """Which of some configs' numbers [n, k] the optimizer's rules refuse, each by itself: their messages.

        A check takes up to a millisecond. So many configs are first checked as arrays, each number against its own
        range, and at the corners of the box around them, for what numbers forbid together: limits are monotone. It is
        the box of the optimizer's numbers: those of the config may reach them by any function.
        """
        with self._explained():
            made = jax.vmap(lambda one: arrays(self._make(one)[1]))(jnp.asarray(numbers))
        optimizers: Method = jax.device_get(made)  # for all numbers: every leaf has the axis of n
        leaves, structure = jax.tree.flatten(optimizers)
        varied = [i for i, leaf in enumerate(leaves) if np.any(leaf != leaf[:1])]
        is_scalar = all(leaves[i].shape == (len(numbers),) and leaves[i].dtype.kind == "f" for i in varied)
        if is_scalar and 2 ** len(varied) < len(numbers) and _refusal(optimizers) is None:
            corners = [leaf[: 2 ** len(varied)] for leaf in leaves]
            for i, ends in zip(varied, np.meshgrid(*([leaves[i].min(), leaves[i].max()] for i in varied)), strict=True):
                corners[i] = ends.ravel()
            if not _refused(jax.tree.unflatten(structure, corners), 2 ** len(varied)):
                return {}
        return _refused(optimizers, len(numbers))

    def points(self, width: int) -> int:
        """The most points of one call."""
        return self.order_shape(width)[-3]

    def order_shape(self, width: int) -> tuple[int, ...]:
        """The examples of a call's steps: [(width,) seeds, points, eval_every, batch]."""
        plan = self.plan
        each = (width, plan.seeds) if plan.independent else (plan.seeds,)
        batch = (plan.batch_size or 0) if self.examples else 0
        most = _INDICES // max(1, math.prod(each) * plan.eval_every * batch)
        return *each, max(1, min(plan.steps // plan.eval_every, most)), plan.eval_every, batch

    def arguments(self, width: int) -> tuple:
        """The program's arguments or their shapes: packed rows, numbers, mode, data, order, keys, step, points."""
        shape = jax.ShapeDtypeStruct
        order = shape(self.order_shape(width), jnp.int32)
        keys = jax.eval_shape(lambda: jnp.broadcast_to(run_key(0), order.shape[:-3]))
        rows = [shape((width, self.plan.seeds, *leaf.shape), leaf.dtype) for leaf in self.packed_shapes]
        numbers, scalar = shape((width, len(self.static.names)), jnp.float32), shape((), jnp.int32)
        mode = shape((width,), jnp.int8)
        return rows, numbers, mode, self.data, order, keys, scalar, scalar

    def program(self, width: int) -> Program:
        """Trace the program for a width."""
        with self._explained():
            return Program(functools.partial(self._cohort, self.points(width)), self.arguments(width), donate=True)

    def test_scores(self, numbers: np.ndarray, rows: list, keys: jax.Array, step: int) -> dict[str, np.ndarray]:
        """The scores of one trial's seeds on the test data, float32 [seeds] by name."""
        if self.task.test is None:
            return {}
        score = functools.partial(self._test_scores, numbers, step)
        found = jax.jit(jax.vmap(score, in_axes=(0, 0, None)))(rows, keys, self.task.test)
        return {f"test.{name}": np.asarray(value) for name, value in found.items()}

    @functools.cached_property
    def test_hashes(self) -> dict[str, str]:
        """Of the test data; without valid data also of how they are scored, which the program does not contain then."""
        test = self.task.test
        found = {"test data": digest(test)}
        if test is not None and self.task.valid is None:
            score = functools.partial(self._test_scores, self._first, 0)
            found["evaluation of the test data"] = Program(score, (self.packed_shapes, _KEY, test)).fingerprint
        return found

    def _test_scores(self, numbers: np.ndarray, step: int, packed: list, key: jax.Array, test: Any) -> dict:
        """What is measured of one member on the test data."""
        task, optimizer = self._make(jnp.asarray(numbers))
        rules, state = self._rules_and_state(task, optimizer, unpack(packed, self.row_shapes), key, jnp.int32(step))
        return rules.score(state, test)

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
        batch = jax.ShapeDtypeStruct((1, self.plan.batch_size), jnp.int32) if self.examples else None

        def begun(numbers, key, data, order):
            task, optimizer = self._make(numbers)
            values = hyperparameters(optimizer)
            decays = [values[path] for path, parameter in parameters_of(optimizer).items() if parameter.is_decay]
            state = first_state(task, optimizer, key)
            rules, state = self._rules_and_state(task, optimizer, _rows_of(state), key, state.step)
            self.shapes = measured(rules, state, data, order)
            return (task.train, task.valid, task.test), decays, _rows_of(state)

        (data, decays, _), (shapes, _, self.row_shapes) = _dependence(begun, self.static.names, _KEY, self.data, batch)
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

    def _rules_and_state(
        self, task: Task, optimizer: Method, rows: Rows, key: jax.Array, step: Any
    ) -> tuple[Rules, TrainState]:
        kind = "drawn" if self.examples else "whole"
        saving = {name: getattr(self.plan, name) for name in SAVING}
        rules = Rules(task.loss, task.evaluate, task.stateful, kind, self.plan.compute_dtype, norms=False, **saving)
        optimizer = arrays_for(optimizer, rows.params)
        return rules, TrainState(rows.params, optimizer, rows.opt_state, rows.model_state, key, step)

    def _refresh(self, task: Task, optimizer: Method, mode: Any, rows: Rows, key: jax.Array) -> Rows:
        """A member's state where it is asked for anew."""
        opt_state = first_opt_state(task, arrays_for(optimizer, rows.params), rows.params, key)
        kept = tree.where(mode == RESET, rows._replace(opt_state=opt_state), rows)
        return tree.where(mode == FRESH, _rows_of(first_state(task, optimizer, key)), kept)

    def _member(self, most, packed, numbers, mode, any_new, key, order, data, step, n) -> tuple[list, dict, jax.Array]:
        """Advance one member by n points of at most `most`; curves float32 by name, and whether it was finite, bool."""
        task, optimizer = self._make(numbers)
        rows = unpack(packed, self.row_shapes)
        fresh = lambda rows: self._refresh(task, optimizer, mode, rows, key)
        rows = jax.lax.cond(any_new, fresh, lambda rows: rows, rows)
        rules, state = self._rules_and_state(task, optimizer, rows, key, step)

        def advance(i, loop):
            run, curves, finite = loop
            run, row = point(rules, run, data, order[i], self.plan.eval_every, True, None)
            curves = {name: curve.at[i].set(row[name]) for name, curve in curves.items()}
            return run, curves, finite.at[i].set(row["finite"])

        blank = {name: jnp.zeros(most, jnp.float32) for name in self.metrics}
        loop = begin(rules, state, self.shapes, monitored=False), blank, jnp.zeros(most, bool)
        run, curves, finite = jax.lax.fori_loop(0, n, advance, loop)
        return pack(_rows_of(run.state)), curves, finite

    def _cohort(self, most, packed, numbers, mode, data, order, keys, step, n) -> tuple[list, dict, jax.Array]:
        """Advance a cohort, its members side by side.

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

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Add to an error of the trace what a traced config allows."""
        try:
            yield
        except Exception as error:
            shape = isinstance(error, TypeError) and any(words in str(error) for words in _OF_SHAPES)
            if self.static.names and (shape or isinstance(error, jax.errors.JAXTypeError)):
                error.add_note(
                    f"sweep: traced numbers are here {', '.join(self.static.names)}; what decides about shapes or "
                    "Python's control flow must be static: use choice(...) or int_uniform(...)"
                )
            raise


# In messages of Python, NumPy and JAX, where a float32 was given for a length.
_OF_SHAPES = ("interpreted as an integer", "integers or a single integer", "of concrete values", "shapes must be")


def _refused(optimizers: Method, n: int) -> dict[int, str]:
    """Which of n optimizers, whose leaves have that axis, their rules refuse: their messages."""
    messages = {i: _refusal(jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), optimizers)) for i in range(n)}
    return {i: message for i, message in messages.items() if message is not None}


def _refusal(optimizer: Method) -> str | None:
    """The message of the rules inside, made anew from numbers that are no longer traced; None if they accept them."""
    is_number = lambda x: jnp.issubdtype(jnp.result_type(x), jnp.floating)
    numbers = {name: x for name, x in hyperparameters(optimizer).items() if is_number(x)}
    try:
        replace(optimizer, numbers)
    except ValueError as error:
        return str(error)
    return None


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


def _rows_of(state: TrainState) -> Rows:
    return Rows(state.params, state.opt_state, state.model_state)


def pack(rows: Any) -> list:
    """The leaves of a state, random keys as their words."""
    return [jax.random.key_data(leaf) if tree.is_random_key(leaf) else leaf for leaf in jax.tree.leaves(rows)]


def unpack(packed: list, like: Any) -> Any:
    """The inverse of `pack`, given shapes of the state."""
    leaves, structure = jax.tree.flatten(like)
    impl = lambda shape: jax.random.key_impl(jnp.empty((), shape.dtype))  # it takes arrays only
    wrap = lambda x, shape: jax.random.wrap_key_data(x, impl=impl(shape)) if tree.is_random_key(shape) else x
    return jax.tree.unflatten(structure, [wrap(x, shape) for x, shape in zip(packed, leaves, strict=True)])


def run_key(seed: Any) -> jax.Array:
    """The key of a run, that of `fit` under JAX's usual settings.

    It is of one kind whatever those settings are: from keys of the kind "rbg", what a run draws under vmap would depend
    on its neighbours.
    """
    return jax.random.key(seed, impl="threefry2x32")


_KEY = jax.eval_shape(lambda: run_key(0))
