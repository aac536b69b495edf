"""The program of a group of trials: a cohort of them, each with several seeds, advances by some points.

A *member* is one seed of one trial: `vmap` over seeds of `vmap` over trials of `train.point`. All trials of a cohort
stand at one step, so a seed's minibatch is the same for all of them and is gathered once. Data are arguments of the
program: its text does not grow with them, and one text serves every device.
"""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
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
            near = max(1, round(self.steps / self.eval_every)) * self.eval_every
            raise ValueError(
                f"sweep: steps={self.steps} must be a multiple of eval_every={self.eval_every}, such as {near}"
            )


class Rows(NamedTuple):
    """The state of a member between two calls."""

    params: Any
    opt_state: Any
    model_state: Any


class Measured(NamedTuple):
    """What a call measured at each of its points; the later ones of a short call are not filled."""

    curves: dict[str, jax.Array]  # float32 [points, width, seeds]
    finite: jax.Array  # bool [points, width]: loss and parameters, of all seeds


class Group:
    """Trials of one static part: what they train, and their program for a width.

    Args:
        trial: the user's function of a config.
        static: the static part of the configs.
        numbers: the numbers of one of them, float32 [k], for the concrete call.
        plan: how each trial trains.
        reading: where to note what `trial` reads of its configs; None for nowhere.

    Raises:
        TypeError, ValueError: if trial returns something else than a task and an optimizer, or its data depend on a
            traced number.
    """

    def __init__(
        self, trial: Callable, static: StaticPart, numbers: np.ndarray, plan: SweepPlan, reading: Reading | None = None
    ):
        self.trial, self.static, self.plan, self._first, self.reading = trial, static, plan, numbers, reading
        with self._explained():
            self.task, method = self._make(numbers)
        if self.task.train_is_iterator:
            raise TypeError("sweep: the task's train must be arrays (or None); an iterator cannot be shared by trials")
        rows, batch = self.task.rows, plan.batch_size
        if rows is not None and batch is not None and batch > rows:
            raise ValueError(f"sweep: batch_size={batch} is more than the {rows} training examples of {static.label}")
        self.examples = rows if batch is not None else None  # of which batches are drawn; None: none are
        if isinstance(method, Solver) and self.examples is not None:
            name = method.factory.spec.name
            raise ValueError(f"sweep: {name} is a solver, which needs all examples at each step; give batch_size=None")
        self.data = (self.task.train, self.task.valid)
        self.digest = digest(self.data)
        with self._explained():
            self.decays = self._check_data()
            self.row_shapes, self.shapes = self._trace()

    def out_of_range(self, numbers: np.ndarray) -> dict[int, str]:
        """Which of some configs' numbers [n, k] the optimizer's rules refuse, each by itself: their messages.

        A check takes up to a millisecond. So many configs are first checked as arrays, each number against its own
        range, and at the corners of the box around them, for what numbers forbid together: limits are monotone. It is
        the box of the optimizer's numbers: those of the config may reach them by any function.
        """
        optimizers = self._optimizers(numbers)
        leaves, structure = jax.tree.flatten(optimizers)
        varied = [i for i, leaf in enumerate(leaves) if np.any(leaf != leaf[:1])]
        is_scalar = all(leaves[i].shape == (len(numbers),) and leaves[i].dtype.kind == "f" for i in varied)
        if is_scalar and 2 ** len(varied) < len(numbers) and _refusal(optimizers) is None:
            box = np.array(list(itertools.product((0, 1), repeat=len(varied)))).reshape(2 ** len(varied), len(varied))
            extreme = [leaf[: len(box)] for leaf in leaves]
            for column, i in zip(box.T, varied):
                extreme[i] = np.where(column, leaves[i].max(), leaves[i].min())
            if not _refused(jax.tree.unflatten(structure, extreme), len(box)):
                return {}
        return _refused(optimizers, len(numbers))

    def _optimizers(self, numbers: np.ndarray) -> Method:
        """The optimizers for numbers [n, k], every leaf with the axis of n."""
        with self._explained():
            made = jax.vmap(lambda one: arrays(self._make(one)[1]))(jnp.asarray(numbers))
        return jax.device_get(made)

    @functools.cached_property
    def bytes(self) -> int:
        """Size of a trial's state, all its seeds."""
        return self.plan.seeds * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(self.packed_shapes))

    @functools.cached_property
    def packed_shapes(self) -> list[jax.ShapeDtypeStruct]:
        """A member's state as plain arrays."""
        return jax.eval_shape(pack, self.row_shapes)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the curves."""
        return tuple(sorted(self.shapes.names))

    def points(self, width: int) -> int:
        """The most points of one call."""
        plan = self.plan
        if self.examples is None:
            return plan.steps // plan.eval_every
        each = plan.eval_every * (plan.batch_size or 1) * plan.seeds * (width if plan.independent else 1)
        return max(1, min(plan.steps // plan.eval_every, _INDICES // each))

    def order_shape(self, width: int) -> tuple[int, ...]:
        """The examples of a call's steps: [(width,) seeds, points, eval_every, batch]."""
        plan = self.plan
        each = (width, plan.seeds) if plan.independent else (plan.seeds,)
        return *each, self.points(width), plan.eval_every, (plan.batch_size or 0) if self.examples else 0

    def arguments(self, width: int) -> tuple:
        """Shapes of the program's arguments: packed rows, numbers, mode, data, order, keys, step, points."""
        seeds, plan, shape = self.plan.seeds, self.plan, jax.ShapeDtypeStruct
        each = (width, seeds) if plan.independent else (seeds,)
        keys = jax.eval_shape(lambda: jnp.broadcast_to(run_key(0), each))
        rows = [shape((width, seeds, *leaf.shape), leaf.dtype) for leaf in self.packed_shapes]
        numbers, scalar = shape((width, len(self.static.names)), jnp.float32), shape((), jnp.int32)
        mode = shape((width,), jnp.int8)
        return rows, numbers, mode, _shapes(self.data), shape(self.order_shape(width), jnp.int32), keys, scalar, scalar

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
            found["evaluation of the test data"] = Program(score, (self.packed_shapes, _KEY, _shapes(test))).fingerprint
        return found

    def _test_scores(self, numbers: np.ndarray, step: int, packed: list, key: jax.Array, test: Any) -> dict:
        """What is measured of one member on the test data."""
        rules, state = self._rules_and_state(
            *self._make(jnp.asarray(numbers)), unpack(packed, self.row_shapes), key, jnp.int32(step)
        )
        return rules.score(state, test)

    def _make(self, numbers: Any) -> tuple[Task, Method]:
        """Call the user's function."""
        config = self.static.join(numbers)
        made = self.trial(config if self.reading is None else Observed(config, self.reading))
        if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], Task)):
            got = f"a tuple of {len(made)}" if type(made) is tuple else describe(made)
            raise TypeError(f"sweep: trial must return (task, optimizer), got {got}")
        return made[0], accept_method("sweep", made[1])

    def _check_data(self) -> frozenset[str]:
        """Raise if a data set is computed from a traced number, or its shapes are not the same each time.

        Returns:
            The names of the numbers that reach a decay of the optimizer.
        """

        def made(*numbers):
            task, optimizer = self._make(numbers)
            values = hyperparameters(optimizer)
            decays = [values[path] for path, parameter in parameters_of(optimizer).items() if parameter.is_decay]
            return (task.train, task.valid, task.test), decays

        reached, (shapes, _) = _dependence(made, len(self.static.names))
        for path, numbers in jax.tree_util.tree_leaves_with_path(reached[0], is_leaf=lambda x: isinstance(x, set)):
            if numbers:
                where, names = ("train", "valid", "test")[path[0].idx], (self.static.names[i] for i in sorted(numbers))
                raise ValueError(
                    f"sweep: the task's {where} data depend on a traced number of the config ({', '.join(names)}); "
                    "data are shared by all trials of a group: make that dimension static (a choice), or apply the "
                    "number in the loss"
                )
        was = (self.task.train, self.task.valid, self.task.test)
        was, now = [jax.tree.map(lambda x: (x.shape, x.dtype.name), data) for data in (was, shapes)]
        if was != now:
            raise ValueError(f"sweep: trial must return the same data each time, got {was}, then {now}")
        return frozenset(self.static.names[i] for i in set().union(*reached[1]))

    def _trace(self) -> tuple[Rows, Shapes]:
        """The shapes of a member, and of what steps and evaluations measure."""
        found = []
        order = jax.ShapeDtypeStruct((1, self.plan.batch_size), jnp.int32) if self.examples else None

        def begun(numbers, key, data, order):
            task, optimizer = self._make(numbers)
            state = first_state(task, optimizer, key)
            rules, state = self._rules_and_state(task, optimizer, _rows_of(state), key, state.step)
            found.append(measured(rules, state, data, order))
            return _rows_of(state)

        numbers = jax.ShapeDtypeStruct((len(self.static.names),), jnp.float32)
        return jax.eval_shape(begun, numbers, _KEY, _shapes(self.data), order), found[0]

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

    def _cohort(self, most, packed, numbers, mode, data, order, keys, step, n) -> tuple[list, Measured]:
        """Advance a cohort, its members side by side."""
        any_new, own = jnp.any(mode != KEEP), self.plan.independent  # own: each trial has keys and an order

        def member(packed, numbers, mode, key, order):
            return self._member(most, packed, numbers, mode, any_new, key, order, data, step, n)

        over_seeds = jax.vmap(member, in_axes=(0, None, None, 0, 0))
        over_slots = jax.vmap(over_seeds, in_axes=(0, 0, 0, *((0, 0) if own else (None, None))))
        packed, curves, finite = over_slots(packed, numbers, mode, keys, order)
        curves = {name: jnp.moveaxis(curve, -1, 0) for name, curve in curves.items()}
        return packed, Measured(curves, jnp.moveaxis(finite.all(axis=1), -1, 0))

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Add to an error of the trace what a traced config allows."""
        try:
            yield
        except Exception as error:
            shape = isinstance(error, TypeError) and any(words in str(error) for words in _OF_SHAPES)
            if self.static.names and (shape or isinstance(error, jax.errors.JAXTypeError)):
                error.add_note(
                    "sweep: traced numbers, all values of which share one program, are here "
                    f"{', '.join(self.static.names)}; what decides about shapes or Python's control flow must be "
                    "static: use choice(...) or int_uniform(...)"
                )
            raise


# In messages of Python, NumPy and JAX, where a float32 was given for a length.
_OF_SHAPES = ("interpreted as an integer", "integers or a single integer", "of concrete values", "shapes must be")


def _refused(optimizers: Method, n: int) -> dict[int, str]:
    """Which of n optimizers, whose leaves have that axis, their rules refuse: their messages."""
    leaves, structure = jax.tree.flatten(optimizers)
    each = (jax.tree.unflatten(structure, [np.asarray(leaf[i]) for leaf in leaves]) for i in range(n))
    messages = enumerate(map(_refusal, each))
    return {i: message for i, message in messages if message is not None}


def _refusal(optimizer: Method) -> str | None:
    """The message of the rules inside, made anew from numbers that are no longer traced; None if they accept them."""
    is_number = lambda x: jnp.issubdtype(jnp.result_type(x), jnp.floating)
    numbers = {name: x for name, x in hyperparameters(optimizer).items() if is_number(x)}
    try:
        replace(optimizer, numbers)
    except ValueError as error:
        return str(error)
    return None


def _dependence(function: Callable, n: int) -> tuple[Any, Any]:
    """For each array that a function of n numbers returns, the set of numbers that it depends on; and their shapes."""
    traced, shapes = jax.make_jaxpr(function, return_shape=True)(*[jax.ShapeDtypeStruct((), jnp.float32)] * n)
    reached = {variable: {i} for i, variable in enumerate(traced.jaxpr.invars)}
    of = lambda v: set() if hasattr(v, "val") else reached.get(v, set())
    for equation in traced.jaxpr.eqns:
        found = set().union(*map(of, equation.invars))
        reached.update(dict.fromkeys(equation.outvars, found))
    return jax.tree.unflatten(jax.tree.structure(shapes), map(of, traced.jaxpr.outvars)), shapes


def _rows_of(state: TrainState) -> Rows:
    return Rows(state.params, state.opt_state, state.model_state)


def _shapes(arrays: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arrays)


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
