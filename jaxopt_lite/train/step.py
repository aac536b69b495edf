"""One training step as a pure function of a state that holds everything, the optimizer included."""

import functools
import itertools
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxopt_lite import tree
from jaxopt_lite.core.checks import check_params
from jaxopt_lite.core.hyperparameters import arrays, hyperparameters
from jaxopt_lite.core.numbers import describe
from jaxopt_lite.core.transformation import GradientTransformation, apply_updates
from jaxopt_lite.core.values import Value
from jaxopt_lite.train.calls import compiled_once, copied, is_random_key
from jaxopt_lite.train.task import Task, call_loss, check_task

__all__ = ["TrainState", "init_state", "make_step"]

MOST_STEPS = 2**31 - 1  # they are counted in 32 bits

# Indices into the run's key that no epoch reaches: epochs are folded in from 0 on.
_INIT, _STEPS, _SCORES, _NOISE = 2**32 - 1, 2**32 - 2, 2**32 - 3, 2**32 - 4


class TrainState(NamedTuple):
    """A run as a value: all that the next step depends on, but the data.

    Attributes:
        params: the parameters, in their own dtypes.
        optimizer: the optimizer, its hyperparameters as arrays: edit it between steps without compiling again.
        opt_state: the optimizer's state.
        model_state: the model's state, None for tasks that have none.
        key: the random key of the run; the data order and each step's key come from it.
        step: number of steps done, int32.
    """

    params: Any
    optimizer: GradientTransformation
    opt_state: Any
    model_state: Any
    key: jax.Array
    step: jax.Array


def init_state(task: Task, optimizer: Any, seed: int | jax.Array = 0, params: Any = None) -> TrainState:
    """The state before the first step.

    The random keys in the optimizer's state, those of noise, are made from the optimizer's own and the seed, so that
    runs with different seeds have different noise. `task.init` is traced once for each task, and compiled once for all
    tasks whose inits compute the same.

    Args:
        task: what is to be learned.
        optimizer: a transformation of this package or of Optax.
        seed: an int in [0, 2**32), or a key. May be traced, so that `jax.vmap` over seeds gives a batch of states.
        params: parameters to begin with, in place of those that `task.init` makes (they are copied).

    Raises:
        TypeError: if the task, the optimizer or the seed is of another type, or params have leaves that cannot be
            optimized.
        ValueError: if the seed is out of its range.
    """
    check_task("init_state", task)
    optimizer = accept_optimizer("init_state", optimizer)
    key = _run_key("init_state: seed", seed)
    check_params("init_state", params)
    return compiled_once(_traced_once(task), optimizer, key, copied(params))


_starts: weakref.WeakKeyDictionary[Task, Callable] = weakref.WeakKeyDictionary()


def _traced_once(task: Task) -> Callable:
    """`first_state` of a task as a function of `jax.jit`, the same one each time."""
    if task not in _starts:
        held = weakref.proxy(task)  # what is found by the task must not keep it alive
        _starts[task] = jax.jit(lambda *arguments: first_state(held.init, held.stateful, *arguments))
    return _starts[task]


def _run_key(who: str, seed: Any) -> jax.Array:
    """The key of a run from a seed, or from a key in either of JAX's forms."""
    if isinstance(seed, int) and not isinstance(seed, bool) or isinstance(seed, np.integer):
        check_seed(who, seed)
        return jax.random.key(int(seed))
    if isinstance(seed, (np.ndarray, jax.Array)):
        if isinstance(seed, jax.Array) and is_random_key(seed) and seed.ndim == 0:
            return seed
        if seed.dtype == np.uint32 and seed.shape == jax.random.key_data(jax.random.key(0)).shape:
            return jax.random.wrap_key_data(jnp.asarray(copied(seed)))
        if jnp.issubdtype(seed.dtype, np.integer) and seed.ndim == 0:
            return jax.random.key(seed) if isinstance(seed, Tracer) else _run_key(who, int(seed))
    raise TypeError(f"{who} must be an int or a key, got {describe(seed)}")


def check_seed(who: str, seed: Any, seeds: int = 1) -> None:
    """Raise unless seed, seed + 1, ... are seeds. JAX takes 32 bits of one: 2**32 would be 0 again."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"{who} must be an int of at least 0, got {seed!r:.80}")
    if int(seed) + seeds > 2**32:
        last = f" (that of the last run is {int(seed) + seeds - 1})" if seeds > 1 else ""
        raise ValueError(f"{who} must be less than 2**32 = {2**32}, got {seed!r:.80}{last}")


def accept_optimizer(who: str, optimizer: Any) -> GradientTransformation:
    """The optimizer that a caller gave; of its spelling the message says what to do with it."""
    if isinstance(optimizer, str):
        got = f"{optimizer!r:.80}"
        raise TypeError(f"{who}: optimizer must be a transformation, got the string {got}; use jaxopt_lite.parse")
    return GradientTransformation.accept(optimizer, who, "optimizer")


def first_state(
    init: Callable, stateful: bool, optimizer: GradientTransformation, key: jax.Array, params: Any = None
) -> TrainState:
    """`init_state` from a task's parts and a key, without checks of the arguments, for use inside another trace."""
    made = init(jax.random.fold_in(key, _INIT))
    if stateful and not (isinstance(made, tuple) and len(made) == 2):
        raise TypeError("Task: with stateful=True, init must return (params, model_state)")
    made, model_state = made if stateful else (made, None)
    check_params("Task: init", made)
    params = made if params is None else params
    # Copies, because the steps donate what they are given: nobody else's arrays may be among it.
    params = jax.tree.map(lambda p: jnp.array(p, jnp.result_type(p), copy=True), params)
    optimizer = arrays_for(optimizer, params)
    opt_state = first_opt_state(optimizer, params, key)
    key = jax.random.clone(key)
    return TrainState(params, optimizer, opt_state, model_state, key, jnp.zeros([], jnp.int32))


def arrays_for(optimizer: GradientTransformation, params: Any) -> GradientTransformation:
    """The optimizer with its hyperparameters as arrays of the widest of the parameters' dtypes, float32 at least."""
    dtypes = {jnp.result_type(p) for p in jax.tree.leaves(params)}
    return arrays(optimizer, jnp.float64 if jnp.dtype(jnp.float64) in dtypes else jnp.float32)


def first_opt_state(optimizer: GradientTransformation, params: Any, key: jax.Array) -> Any:
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
        if not is_raw and not is_random_key(leaf):
            return leaf
        of_rule = jax.random.fold_in(jax.random.fold_in(key, _NOISE), next(places))
        first, second = jax.random.bits(of_rule, (2,), jnp.uint32)
        mix = lambda own: jax.random.fold_in(jax.random.fold_in(own, first), second)
        for _ in range(leaf.ndim - is_raw):
            mix = jax.vmap(mix)
        return mix(leaf)

    return jax.tree_util.tree_map_with_path(fold, optimizer.init(params))


def adopted(who: str, state: TrainState) -> TrainState:
    """A copy, to be donated, of a state that may have been made or changed by hand, in the form of `init_state`'s.

    Hyperparameters that are numbers become arrays, shared by all runs where the state is of several.
    """
    state = copied(state)
    steps = steps_done(who, state)
    of_raw = isinstance(state.key, (np.ndarray, jax.Array)) and state.key.dtype == np.uint32 and state.key.ndim
    key = jax.random.wrap_key_data(jnp.asarray(state.key)) if of_raw else state.key
    key = key if is_random_key(key) else _run_key(f"{who}: the state's key", key)
    params = jax.tree.map(lambda p: jnp.array(p, jnp.result_type(p), copy=True), state.params)
    optimizer = accept_optimizer(who, state.optimizer)
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
    )


def steps_done(who: str, state: TrainState) -> np.ndarray:
    """The number of steps that a state is after; of several runs, each one's."""
    steps = np.asarray(state.step)
    if not (np.issubdtype(steps.dtype, np.integer) and np.all((steps >= 0) & (steps <= MOST_STEPS))):
        raise ValueError(f"{who}: the state's step must be an int in [0, {MOST_STEPS}], got {state.step!r:.80}")
    return steps


def _own_ndim(optimizer: GradientTransformation, path: tuple) -> int:
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


def make_step(loss: Callable | Task, *, stateful: bool = False, compute_dtype: Any = None) -> Callable:
    """Compile one step: (TrainState, batch) -> (TrainState, metrics).

    The state is donated: its arrays are gone after the call. The step's key is made from the run's key and the step's
    number. An optimizer that wants `value`, `grad` or `value_fn` (a line search, say) is given them.

    Args:
        loss: the loss of a task, in any of its forms, or the task itself.
        stateful: whether the loss carries a model state (a task says so itself).
        compute_dtype: dtype for the loss, such as "bfloat16": parameters and floating data are cast to it, gradients
            come back in the parameters' dtypes. None computes in the dtypes that are there.

    Returns:
        The compiled step. Metrics are scalars: loss, the loss's own metrics, learning_rate (for each, if the optimizer
        has several), grad_norm and update_norm.

    Raises:
        TypeError: if the loss is no function.
        ValueError: if compute_dtype is no floating dtype.
    """
    if isinstance(loss, Task):
        loss, stateful = loss.loss, loss.stateful
    if not callable(loss):
        raise TypeError(f"make_step: loss must be a function or a Task, got {describe(loss)}")
    compute_dtype = floating(compute_dtype, "make_step", "compute_dtype")
    compiled = jax.jit(plain_step(loss, stateful, compute_dtype), donate_argnums=0)

    @functools.wraps(compiled)
    def step(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        return compiled(state, copied(batch))

    step.__dict__["lower"] = compiled.lower  # for those who look at the program or its cost
    return step


def floating(dtype: Any, who: str, name: str) -> str | None:
    """The name of a floating dtype; None stays None."""
    if dtype is None:
        return None
    try:
        found = jnp.dtype(dtype)
    except TypeError:
        found = None
    if found is None or not jnp.issubdtype(found, jnp.floating):
        raise ValueError(f"{who}: {name} must be a floating dtype such as 'bfloat16', got {dtype!r}")
    return found.name


def plain_step(loss: Callable, stateful: bool, compute_dtype: Any) -> Callable:
    """The step before it is compiled."""
    parts = step_parts(loss, stateful, compute_dtype)

    def step(state: TrainState, batch: Any, norms_wanted: bool = True) -> tuple[TrainState, dict[str, jax.Array]]:
        after, measured, (_, grads), updates = parts.advance(state, batch)
        return after, {**measured, **measure_update(state, grads, updates)} if norms_wanted else measured

    return step


class StepParts(NamedTuple):
    """A step for loops that look at few of their updates.

    Attributes:
        advance: (state, batch) -> the next state, the loss and its metrics, (value, gradient) and the updates.
        updates: (state, batch, value, gradient) -> the updates again. A step that need not hand them out is faster, as
            they then go into the parameters at once.
    """

    advance: Callable
    updates: Callable


def step_parts(loss: Callable, stateful: bool, compute_dtype: Any) -> StepParts:
    """The parts of `plain_step`."""

    def objective(params, model_state, batch, key):
        if compute_dtype is not None:
            params, batch = _cast(params, compute_dtype), _cast(batch, compute_dtype)
        value, aux = call_loss(loss, stateful, params, model_state, batch, key)
        dtype = jnp.result_type(value)
        return jnp.asarray(value, tree.compute_dtype(dtype) if jnp.issubdtype(dtype, jnp.inexact) else jnp.float32), aux

    def steps_key(state):
        return jax.random.fold_in(jax.random.fold_in(state.key, _STEPS), state.step)

    def update(state, batch, value, grads):
        return state.optimizer.update(
            grads,
            state.opt_state,
            state.params,
            value=value,
            grad=grads,
            value_fn=lambda params: objective(params, state.model_state, batch, steps_key(state))[0],
        )

    def advance(state: TrainState, batch: Any) -> tuple:
        run = jax.value_and_grad(objective, has_aux=True)
        (value, (metrics, model_state)), grads = run(state.params, state.model_state, batch, steps_key(state))
        # In the parameters' dtype, so that a bfloat16 update does not lose the weight decay.
        grads = tree.cast_like(grads, state.params)
        updates, opt_state = update(state, batch, value, grads)
        params = apply_updates(state.params, updates)
        after = TrainState(params, state.optimizer, opt_state, model_state, state.key, state.step + 1)
        return after, {"loss": value, **metrics}, (value, grads), updates

    return StepParts(advance, lambda *args: update(*args)[0])


def measure_update(state: TrainState, grads: Any, updates: Any) -> dict[str, jax.Array]:
    """What is measured of a step beside the loss: the learning rates and the norms."""
    norms = {"grad_norm": tree.global_norm(grads), "update_norm": tree.global_norm(updates)}
    norms = {name: jnp.asarray(norm, jnp.float32) for name, norm in norms.items()}
    return {**learning_rates(state.optimizer, state.opt_state), **norms}


def scores_key(state: TrainState) -> jax.Array:
    """The key with which data are evaluated after a step."""
    return jax.random.fold_in(jax.random.fold_in(state.key, _SCORES), state.step)


def learning_rates(optimizer: GradientTransformation, opt_state: Any) -> dict[str, jax.Array]:
    """Today's learning rate, as `learning_rate`; where there are several, each under its path."""
    found = {
        path: jnp.asarray(value, jnp.float32)
        for path, value in hyperparameters(optimizer, opt_state).items()
        if path.rpartition(".")[2] == "learning_rate"
    }
    return dict(zip(["learning_rate"], found.values(), strict=True)) if len(found) == 1 else found


def _cast(data: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(jnp.result_type(x), jnp.floating) else x, data)
