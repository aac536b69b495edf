"""The state of a run: a value that holds everything except the data, the optimizer included."""

import itertools
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxopt_lite import tree
from jaxopt_lite.core.checks import check_params
from jaxopt_lite.core.hyperparameters import arrays
from jaxopt_lite.core.method import Objective, Solver, Status, default_tol
from jaxopt_lite.core.numbers import describe
from jaxopt_lite.core.programs import compiled_once
from jaxopt_lite.core.transformation import GradientTransformation
from jaxopt_lite.core.values import Value
from jaxopt_lite.train.calls import copied
from jaxopt_lite.train.task import Task, check_task, loss_of

__all__ = ["TrainState", "init_state"]

Method: TypeAlias = Any  # a transformation or a solver

MOST_STEPS = 2**31 - 1  # they are counted in 32 bits

# Indices into the run's key that no epoch reaches: epochs are folded in from 0 on.
_INIT, STEPS, SCORES, _NOISE = 2**32 - 1, 2**32 - 2, 2**32 - 3, 2**32 - 4


class TrainState(NamedTuple):
    """A run as a value: all that the next step depends on, except the data.

    Attributes:
        params: the parameters, in their own dtypes.
        optimizer: a transformation or a solver, its hyperparameters as arrays: edit it between steps without compiling
            again.
        opt_state: the optimizer's state.
        model_state: the model's state, None for tasks that have none.
        key: the random key of the run; the data order and each step's key come from it.
        step: number of steps done, int32.
        monitor: what the stopping rules of `fit` remember (patience, the best point and its parameters), kept by a run
            that resumes from the state. None where nothing is remembered: before the first run, after a run without
            such rules, and after `state._replace(monitor=None)`, which resets the rules.
    """

    params: Any
    optimizer: Method
    opt_state: Any
    model_state: Any
    key: jax.Array
    step: jax.Array
    monitor: Any = None


class Solving(NamedTuple):
    """The `opt_state` of a run whose optimizer is a solver.

    Attributes:
        method_state: of the solver.
        status: int32, RUNNING or why the solver has ended; once it has, further steps change nothing.
        measured: float scalars by name: loss and metrics at params, and the norms of the last step.
    """

    method_state: Any
    status: jax.Array
    measured: dict[str, jax.Array]


def init_state(task: Task, optimizer: Any, seed: int | jax.Array = 0, params: Any = None) -> TrainState:
    """The state before the first step.

    The random keys in the optimizer's state, those of noise, are made from the optimizer's own and the seed, so that
    runs with different seeds have different noise. `task.init` is traced once for each task, and compiled once for all
    tasks whose inits compute the same.

    Args:
        task: what is to be learned.
        optimizer: a transformation of this package or of Optax, or a solver.
        seed: an int in [0, 2**32), or a key. May be traced, so that `jax.vmap` over seeds gives a batch of states.
        params: parameters to begin with, in place of those that `task.init` makes (they are copied).

    Raises:
        TypeError: if the task, the optimizer or the seed is of another type, or params have leaves that cannot be
            optimized.
        ValueError: if the seed is out of its range.
    """
    check_task("init_state", task)
    optimizer = accept_method("init_state", optimizer)
    key = _run_key("init_state: seed", seed)
    check_params("init_state", params)
    return compiled_once(_traced_once(task), optimizer, key, copied(params))


_starts: weakref.WeakKeyDictionary[Task, Callable] = weakref.WeakKeyDictionary()


def _traced_once(task: Task) -> Callable:
    """`first_state` of a task as a function of `jax.jit`, the same one each time."""
    if task not in _starts:
        held = weakref.proxy(task)  # what is found by the task must not keep it alive
        _starts[task] = jax.jit(lambda *arguments: first_state(held, *arguments))
    return _starts[task]


def _run_key(who: str, seed: Any) -> jax.Array:
    """The key of a run from a seed, or from a key in either of JAX's forms."""
    if isinstance(seed, int) and not isinstance(seed, bool) or isinstance(seed, np.integer):
        check_seed(who, seed)
        return jax.random.key(int(seed))
    if isinstance(seed, (np.ndarray, jax.Array)):
        if isinstance(seed, jax.Array) and tree.is_random_key(seed) and seed.ndim == 0:
            return seed
        if seed.dtype == np.uint32 and seed.shape == jax.random.key_data(jax.random.key(0)).shape:
            return jax.random.wrap_key_data(jnp.asarray(copied(seed)))
        if jnp.issubdtype(seed.dtype, np.integer) and seed.ndim == 0:
            return jax.random.key(seed) if isinstance(seed, Tracer) else _run_key(who, int(seed))
    raise TypeError(f"{who} must be an int or a key, got {describe(seed)}")


def check_seed(who: str, seed: Any, seeds: int = 1) -> None:
    """Raise a ValueError unless seed, ..., seed + seeds - 1 are in [0, 2**32). JAX uses 32 bits: 2**32 would be 0."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"{who} must be an int of at least 0, got {seed!r:.80}")
    if int(seed) + seeds > 2**32:
        last = f" (that of the last run is {int(seed) + seeds - 1})" if seeds > 1 else ""
        raise ValueError(f"{who} must be less than 2**32 = {2**32}, got {seed!r:.80}{last}")


def accept_method(who: str, optimizer: Any) -> Method:
    """The optimizer that a caller gave, as a transformation or a solver.

    Raises:
        TypeError: if it is neither; for the text of an optimizer, the message names `parse`.
    """
    if isinstance(optimizer, str):
        got = f"{optimizer!r:.80}"
        raise TypeError(f"{who}: optimizer must be a transformation, got the string {got}; use jaxopt_lite.parse")
    if isinstance(optimizer, Solver) or getattr(getattr(optimizer, "spec", None), "makes", None) is Solver:
        solver = Solver.accept(optimizer, who, "optimizer")
        if solver.solves != "minimize":
            raise ValueError(
                f"{who}: {solver.factory.spec.name} solves {solver.solves} problems, and a loss is minimized"
            )
        if solver.needs_box:
            name = solver.factory.spec.name
            raise ValueError(f"{who}: {name} searches a box, and the parameters of a task have no bounds")
        return solver
    return GradientTransformation.accept(optimizer, who, "optimizer")


def first_state(task: Task, optimizer: Method, key: jax.Array, params: Any = None) -> TrainState:
    """`init_state` without checks of the arguments, for use inside another trace."""
    made = task.init(jax.random.fold_in(key, _INIT))
    if task.stateful and not (isinstance(made, tuple) and len(made) == 2):
        raise TypeError("Task: with stateful=True, init must return (params, model_state)")
    made, model_state = made if task.stateful else (made, None)
    check_params("Task: init", made)
    params = made if params is None else params
    # Copies, because the steps donate what they are given, and these arrays may also be used elsewhere.
    params = jax.tree.map(lambda p: jnp.array(p, jnp.result_type(p), copy=True), params)
    optimizer = arrays_for(optimizer, params)
    opt_state = first_opt_state(task, optimizer, params, key)
    key = jax.random.clone(key)
    return TrainState(params, optimizer, opt_state, model_state, key, jnp.zeros([], jnp.int32))


def arrays_for(optimizer: Method, params: Any) -> Method:
    """The optimizer with its hyperparameters as arrays of the widest of the parameters' dtypes, float32 at least."""
    dtypes = {jnp.result_type(p) for p in jax.tree.leaves(params)}
    return arrays(optimizer, jnp.float64 if jnp.dtype(jnp.float64) in dtypes else jnp.float32)


def first_opt_state(task: Task, optimizer: Method, params: Any, key: jax.Array) -> Any:
    """The optimizer's first state, with the run's key folded into the random keys that it holds.

    Random keys are arrays of keys, and uint32 [..., 2], JAX's older form, where the path contains "key" or "rng", as
    in Optax's states. A new key is made from the old one, the run's key and its place among the keys, so that two
    rules make different noise even if they were given equal keys.
    """
    places = itertools.count()

    def fold(path, leaf):
        name, dtype = jax.tree_util.keystr(path).lower(), getattr(leaf, "dtype", None)
        words = jax.random.key_data(jax.random.key(0)).shape
        is_raw = dtype == jnp.uint32 and leaf.shape[-1:] == words and ("key" in name or "rng" in name)
        if not is_raw and not tree.is_random_key(leaf):
            return leaf
        of_rule = jax.random.fold_in(jax.random.fold_in(key, _NOISE), next(places))
        first, second = jax.random.bits(of_rule, (2,), jnp.uint32)
        mix = lambda own: jax.random.fold_in(jax.random.fold_in(own, first), second)
        for _ in range(leaf.ndim - is_raw):
            mix = jax.vmap(mix)
        return mix(leaf)

    made = _solving(task, optimizer, params, key) if isinstance(optimizer, Solver) else optimizer.init(params)
    return jax.tree_util.tree_map_with_path(fold, made)


def _solving(task: Task, solver: Solver, params: Any, key: jax.Array) -> Solving:
    """The state before a solver's first step. The loss is traced for its metrics' names, and not evaluated."""
    if task.stateful or task.train_is_iterator:
        what = "the model state changes the loss at each step" if task.stateful else "each batch is another loss"
        raise ValueError(
            f"{solver.factory.spec.name} is a solver, which minimizes one fixed function, but {what}; use a "
            "transformation such as adam"
        )
    objective = solver_objective(task, None, task.train, key, params)
    value, metrics = jax.eval_shape(objective.value, params)
    measured = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), {"loss": value, **metrics})
    norms = {"grad_norm": jnp.zeros([], jnp.float32), "update_norm": jnp.zeros([], jnp.float32)}
    return Solving(solver.init(objective, params), jnp.asarray(Status.RUNNING, jnp.int32), {**measured, **norms})


def solver_objective(task: Task, compute_dtype: str | None, batch: Any, key: jax.Array, params: Any) -> Objective:
    """The loss as a solver sees it, under one key for the whole run, whose key is given.

    With a key for each step, a line search would see another dropout mask at each trial step.
    """
    loss, fixed = loss_of(task, compute_dtype), jax.random.fold_in(key, STEPS)

    def f(params):
        value, (metrics, _) = loss(params, None, batch, fixed)
        return value, metrics

    widest = jnp.result_type(*[tree.real_dtype(p.dtype) for p in jax.tree.leaves(params)])
    return Objective(f, has_aux=True, tol=default_tol(widest), key=fixed)


def adopted(who: str, state: TrainState) -> TrainState:
    """A copy, to be donated, of a state that may have been made or changed by hand, in the form of `init_state`'s.

    Hyperparameters that are numbers become arrays, shared by all runs where the state is of several.
    """
    state = copied(state)
    steps = steps_done(who, state)
    of_raw = isinstance(state.key, (np.ndarray, jax.Array)) and state.key.dtype == np.uint32 and state.key.ndim
    key = jax.random.wrap_key_data(jnp.asarray(state.key)) if of_raw else state.key
    key = key if tree.is_random_key(key) else _run_key(f"{who}: the state's key", key)
    params = jax.tree.map(lambda p: jnp.array(p, jnp.result_type(p), copy=True), state.params)
    optimizer = accept_method(who, state.optimizer)
    converted, runs = arrays_for(optimizer, params), key.shape

    def number(path, x, array):
        array = jnp.copy(x) if isinstance(x, jax.Array) else array
        return jnp.broadcast_to(array, runs + array.shape) if array.ndim == _own_ndim(optimizer, path) else array

    return TrainState(
        params,
        jax.tree_util.tree_map_with_path(number, optimizer, converted),
        jax.tree.map(lambda x: jnp.array(x, copy=True), state.opt_state),
        jax.tree.map(lambda x: jnp.array(x, copy=True), state.model_state),
        jnp.array(key, copy=True),
        jnp.asarray(np.broadcast_to(steps.astype(np.int32), runs)),
        jax.tree.map(lambda x: jnp.array(x, copy=True), state.monitor),
    )


def steps_done(who: str, state: TrainState) -> np.ndarray:
    """The number of steps that a state has done, int [] or [seeds].

    Raises:
        ValueError: if it is not an int in [0, 2**31).
    """
    steps = np.asarray(state.step)
    if not (np.issubdtype(steps.dtype, np.integer) and np.all((steps >= 0) & (steps <= MOST_STEPS))):
        raise ValueError(f"{who}: the state's step must be an int in [0, {MOST_STEPS}], got {state.step!r:.80}")
    return steps


def _own_ndim(optimizer: Method, path: tuple) -> int:
    """How many dimensions the hyperparameter at a path has in a single optimizer, without the axis of several runs."""
    node: Any = optimizer
    parameter: Any = None
    for key in path:
        if isinstance(node, Value):
            parameter, node = node.factory.spec.parameters[key.name], node.arguments[key.name]
        else:
            node = node[key.key if hasattr(key, "key") else key.idx]
    is_raw_key = parameter.range is None and jnp.result_type(node) == jnp.uint32
    return parameter.range.ndim if parameter.range else int(is_raw_key)
