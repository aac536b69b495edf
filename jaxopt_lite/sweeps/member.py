"""The program of a group: a cohort of trials, each with several seeds, goes on by some quanta.

A *member* is one seed of one trial. Arrays of a cohort have axes [width, seeds, ...]. All trials of a cohort stand at
one step, so a seed's minibatch is the same for all of them and is gathered once. Data, and every array that the trace
captured, are arguments of the program: its text does not grow with them, and one text serves every device.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_lite import tree
from jaxopt_lite.core.checks import structure_difference
from jaxopt_lite.core.hyperparameters import arrays, hyperparameters, replace
from jaxopt_lite.core.numbers import describe
from jaxopt_lite.sweeps.grouping import Observed, Reading, Static
from jaxopt_lite.sweeps.program import pack, run_key, unpack
from jaxopt_lite.sweeps.static import printed
from jaxopt_lite.train.point import Rules, Shapes, begin, measured, point
from jaxopt_lite.train.programs import Program, digest
from jaxopt_lite.train.state import Method, TrainState, accept_method, arrays_for, first_opt_state, first_state
from jaxopt_lite.train.step import scores_key
from jaxopt_lite.train.task import Task, scores

__all__ = []

KEEP, FRESH, RESET = range(3)  # a slot's state is there; is to be made; is there, but for the optimizer's
_INDICES = 2**22  # of examples that go to the device in one call


@dataclasses.dataclass(frozen=True)
class SweepPlan:
    """How each trial trains: the arguments of `sweep` that shape the program or the data order."""

    steps: int
    batch_size: int | None
    eval_every: int
    seeds: int
    seed: int
    independent: bool
    compute_dtype: str | None


class Rows(NamedTuple):
    """What a member is between two calls."""

    params: Any
    opt_state: Any
    model_state: Any


class Measured(NamedTuple):
    """What a call measured, at each of its quanta; of the later ones of a short call nothing is filled."""

    curves: dict[str, jax.Array]  # float32 [quanta, width, seeds]
    finite: jax.Array  # bool [quanta, width]: loss and parameters, of all seeds


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
        self, trial: Callable, static: Static, numbers: np.ndarray, plan: SweepPlan, reading: Reading | None = None
    ):
        self.trial, self.static, self.plan, self._first, self.reading = trial, static, plan, numbers, reading
        with self._explained():
            self.task, _ = self._make(numbers)
        if self.task.train_is_iterator:
            raise TypeError("sweep: the task's train must be arrays (or None); an iterator has one run to serve")
        rows, batch = self.task.rows, plan.batch_size
        if rows is not None and batch is not None and batch > rows:
            raise ValueError(f"sweep: batch_size={batch} is more than the {rows} training examples of {self.label}")
        self._check_data(numbers)
        self.examples = rows if batch is not None else None  # of which batches are drawn; None: none are
        self.data = (self.task.train, self.task.valid)
        self.digest = digest(self.data)
        with self._explained():
            self.rows = jax.eval_shape(lambda n, key: self._begin(n, key), self._numbers, _KEY)

    def out_of_range(self, numbers: np.ndarray) -> dict[int, str]:
        """Which of some configs' numbers [n, k] the optimizer's rules would refuse, by row: what they say."""
        with self._explained():
            optimizers = jax.vmap(lambda one: arrays(self._make(one)[1]))(jnp.asarray(numbers))
        if _refusal(optimizers) is None:
            return {}
        each = (_refusal(jax.tree.map(lambda leaf, i=i: leaf[i], optimizers)) for i in range(len(numbers)))
        return {i: said for i, said in enumerate(each) if said is not None}

    @property
    def label(self) -> str:
        """The static part as text."""
        return ", ".join(f"{name}={printed(value)}" for name, value in _statics(self.static.skeleton)) or "all trials"

    @functools.cached_property
    def bytes(self) -> int:
        """Size of a trial's state, all its seeds."""
        return self.plan.seeds * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(self.packed))

    @functools.cached_property
    def packed(self) -> list[jax.ShapeDtypeStruct]:
        """A member's state as plain arrays."""
        return jax.eval_shape(pack, self.rows)

    @property
    def quanta(self) -> int:
        """The most quanta of one call."""
        if self.examples is None:
            return self.plan.steps // self.plan.eval_every
        each = self.plan.eval_every * (self.plan.batch_size or 1) * self.plan.seeds
        return max(1, min(self.plan.steps // self.plan.eval_every, _INDICES // each))

    @functools.cached_property
    def shapes(self) -> Shapes:
        """What steps and evaluations measure."""
        indices = jax.ShapeDtypeStruct((1, self.plan.batch_size), jnp.int32) if self.examples else None
        shape = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype)

        def find(numbers, rows, key, data, order):
            rules, state = self._run_of(*self._make(numbers), rows, key, jnp.int32(0))
            return measured(rules, state, data, order)

        with self._explained():
            return Shapes(
                *jax.eval_shape(find, self._numbers, self.rows, _KEY, jax.tree.map(shape, self.data), indices)
            )

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the curves."""
        return tuple(sorted(self.shapes.names))

    def arguments(self, width: int) -> tuple:
        """Shapes of the program's arguments: packed rows, numbers, mode, data, order, keys, step, quanta."""
        seeds, plan = self.plan.seeds, self.plan
        shape = jax.ShapeDtypeStruct
        each = (width, seeds) if plan.independent else (seeds,)
        order = (*each, *((self.quanta, plan.eval_every, plan.batch_size) if self.examples else (0,)))
        keys = jax.eval_shape(lambda: jnp.broadcast_to(run_key(0), each))
        data = jax.tree.map(lambda x: shape(x.shape, x.dtype), self.data)
        rows = [shape((width, seeds, *leaf.shape), leaf.dtype) for leaf in self.packed]
        numbers = shape((width, *self._numbers.shape), jnp.float32)
        scalar = shape((), jnp.int32)
        return rows, numbers, shape((width,), jnp.int8), data, shape(order, jnp.int32), keys, scalar, scalar

    def program(self, width: int) -> Program:
        """Trace the program for a width."""
        with self._explained():
            return Program(self._cohort, self.arguments(width), donate=True)

    def test_scores(self, numbers: np.ndarray, rows: list, keys: jax.Array, step: int) -> dict[str, np.ndarray]:
        """The scores of one trial's seeds on the test data, float32 [seeds] by name."""
        test = self.task.test
        if test is None:
            return {}
        score = functools.partial(self._test_scores, numbers, step)
        found = jax.jit(jax.vmap(score, in_axes=(0, 0, None)))(rows, keys, test)
        return {f"test.{name}": np.asarray(value) for name, value in found.items()}

    @functools.cached_property
    def test_hashes(self) -> dict[str, str]:
        """Of the test data; without valid data also of how they are scored, which the program then does not say."""
        test = self.task.test
        found = {"test data": digest(test)}
        if test is not None and self.task.valid is None:
            shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (self.packed, _KEY, test))
            score = functools.partial(self._test_scores, self._first, 0)
            scored = Program(score, shapes)
            found["evaluation of the test data"] = scored.fingerprint
        return found

    def _test_scores(self, numbers: np.ndarray, step: int, packed: list, key: jax.Array, test: Any) -> dict:
        """What is measured of one member on the test data."""
        task, _ = self._make(jnp.asarray(numbers))
        rows = unpack(packed, self.rows)
        state = TrainState(rows.params, None, rows.opt_state, rows.model_state, key, jnp.int32(step))
        return scores(task, rows.params, rows.model_state, test, scores_key(state))

    @property
    def _numbers(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((len(self.static.names),), jnp.float32)

    def _make(self, numbers: Any) -> tuple[Task, Method]:
        """Call the user's function."""
        config = self.static.join(numbers)
        made = self.trial(config if self.reading is None else Observed(config, self.reading))
        if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], Task)):
            raise TypeError(f"sweep: trial must return (task, optimizer), got {_short(made)}")
        return made[0], accept_method("sweep", made[1])

    def _check_data(self, numbers: np.ndarray) -> None:
        """Raise if a data set is computed from a traced number, or is not the same each time."""
        with self._explained():
            data = lambda n: (lambda task: (task.train, task.valid, task.test))(self._make(n)[0])
            traced, made = jax.make_jaxpr(data, return_shape=True)(jnp.asarray(numbers))
        tainted = set(traced.jaxpr.invars)
        for equation in traced.jaxpr.eqns:
            if any(not hasattr(v, "val") and v in tainted for v in equation.invars):
                tainted.update(equation.outvars)
        for path, leaf in zip(jax.tree_util.tree_leaves_with_path(made), traced.jaxpr.outvars, strict=True):
            if not hasattr(leaf, "val") and leaf in tainted:
                where = ("train", "valid", "test")[path[0][0].idx]
                raise ValueError(
                    f"sweep: the task's {where} data depend on a traced number of the config "
                    f"({', '.join(self.static.names)}); data are shared by all trials of a group: make that dimension "
                    "static (a choice), or apply the number in the loss"
                )
        was = (self.task.train, self.task.valid, self.task.test)
        shapes = [jax.tree.map(lambda x: (x.shape, x.dtype.name), data) for data in (was, made)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"sweep: trial must return the same data each time, got {shapes[0]}, then {shapes[1]}")

    def _explained(self) -> Any:
        return _Explained(self.static.names)

    def _begin(self, numbers: Any, key: jax.Array) -> Rows:
        state = first_state(*self._make(numbers), key)
        return Rows(state.params, state.opt_state, state.model_state)

    def _run_of(self, task: Task, optimizer: Method, rows: Rows, key: jax.Array, step: Any) -> tuple[Rules, TrainState]:
        rules = Rules(task, "drawn" if self.examples else "whole", self.plan.compute_dtype, norms=False)
        optimizer = arrays_for(optimizer, rows.params)
        return rules, TrainState(rows.params, optimizer, rows.opt_state, rows.model_state, key, step)

    def _refresh(self, task: Task, optimizer: Method, mode: Any, rows: Rows, key: jax.Array) -> Rows:
        """A member's state where it is asked for anew."""
        new = first_state(task, optimizer, key)
        opt_state = first_opt_state(task, arrays_for(optimizer, rows.params), rows.params, key)
        new, again = Rows(new.params, new.opt_state, new.model_state), rows._replace(opt_state=opt_state)
        return tree.where(mode == FRESH, new, tree.where(mode == RESET, again, rows))

    def _member(self, packed, numbers, mode, any_new, key, order, data, step, quanta) -> tuple[list, dict, jax.Array]:
        """Advance one member; curves float32 [quanta] by name, and whether it was finite, bool [quanta]."""
        every, (task, optimizer) = self.plan.eval_every, self._make(numbers)
        rows = unpack(packed, self.rows)
        rows = jax.lax.cond(
            any_new, lambda rows: self._refresh(task, optimizer, mode, rows, key), lambda rows: rows, rows
        )
        rules, state = self._run_of(task, optimizer, rows, key, step)

        def quantum(q, loop):
            run, curves, finite = loop
            here = order[q] if self.examples else None
            run, row = point(rules, run, data, here, every, True, None)
            curves = {name: curve.at[q].set(row[name]) for name, curve in curves.items()}
            return run, curves, finite.at[q].set(row["finite"])

        blank = {name: jnp.zeros(self.quanta, jnp.float32) for name in self.metrics}
        begun = begin(rules, state, self.shapes, monitored=False), blank, jnp.zeros(self.quanta, bool)
        run, curves, finite = jax.lax.fori_loop(0, quanta, quantum, begun)
        return pack(Rows(run.state.params, run.state.opt_state, run.state.model_state)), curves, finite

    def _cohort(self, packed, numbers, mode, data, order, keys, step, quanta) -> tuple[list, Measured]:
        """Advance a cohort, its members side by side."""
        any_new, own = jnp.any(mode != KEEP), self.plan.independent  # own: each trial has keys and an order

        def member(packed, numbers, mode, key, order):
            return self._member(packed, numbers, mode, any_new, key, order, data, step, quanta)

        over_seeds = jax.vmap(member, in_axes=(0, None, None, 0, 0))
        over_slots = jax.vmap(over_seeds, in_axes=(0, 0, 0, *((0, 0) if own else (None, None))))
        packed, curves, finite = over_slots(packed, numbers, mode, keys, order)
        curves = {name: jnp.moveaxis(curve, -1, 0) for name, curve in curves.items()}
        return packed, Measured(curves, jnp.moveaxis(finite.all(axis=1), -1, 0))


def _refusal(optimizer: Method) -> str | None:
    """What the rules inside say when they are made anew of their numbers, which are no longer traced."""
    numbers = {name: x for name, x in hyperparameters(optimizer).items() if _is_number(x)}
    try:
        replace(optimizer, numbers)
    except ValueError as error:
        return str(error)
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, (float, np.ndarray, jax.Array)) and jnp.issubdtype(jnp.result_type(value), jnp.floating)


# In messages of Python, NumPy and JAX, where a float32 was given for a length.
_OF_SHAPES = ("interpreted as an integer", "integers or a single integer", "of concrete values", "shapes must be")


class _Explained:
    """Adds to an error of the trace what a traced config allows."""

    def __init__(self, names: tuple[str, ...]):
        self.names = names

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, _: Any) -> None:
        shape = isinstance(error, TypeError) and any(words in str(error) for words in _OF_SHAPES)
        if self.names and (shape or isinstance(error, jax.errors.JAXTypeError)):
            error.add_note(
                f"sweep: traced numbers, all values of which share one program, are here {', '.join(self.names)}; what "
                "decides about shapes or Python's control flow must be static: use choice(...) or int_uniform(...)"
            )


_KEY = jax.eval_shape(lambda: run_key(0))


def _check_same(new: Rows, old: Rows) -> None:
    difference = structure_difference(new, old, "the state after a step", "the one before")
    if difference:
        raise ValueError(f"sweep: a step must keep the form of the state: {difference}")


def _statics(skeleton: Any, name: str = "") -> list:
    found = []
    for key, value in skeleton.items():
        inner = f"{name}.{key}" if name else key
        if isinstance(value, dict):
            found += _statics(value, inner)
        elif not repr(value).startswith(("<float32>", "_Leaves(")):
            found.append((inner, value))
    return found


def _short(value: Any) -> str:
    return f"a tuple of {len(value)}" if type(value) is tuple else describe(value)
