"""One training step as a pure function of a state that holds everything, the optimizer included."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_lite import tree
from jaxopt_lite.core.checks import check_params
from jaxopt_lite.core.hyperparameters import arrays, hyperparameters
from jaxopt_lite.core.numbers import describe
from jaxopt_lite.core.transformation import GradientTransformation, apply_updates
from jaxopt_lite.train.task import Task, call_loss, check_task

__all__ = ["TrainState", "init_state", "make_step"]

# Indices into the run's key that no epoch reaches: epochs are folded in from 0 on.
_INIT, _STEPS, _SCORES = 2**32 - 1, 2**32 - 2, 2**32 - 3


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

    Args:
        task: what is to be learned.
        optimizer: a transformation of this package or of Optax.
        seed: an int, or a key. May be traced, so that `jax.vmap` over seeds gives a batch of states.
        params: parameters to begin with, in place of those that `task.init` makes (they are copied).

    Raises:
        TypeError: if the task, the optimizer or the seed is none, or params have leaves that cannot be optimized.
    """
    check_task("init_state", task)
    optimizer = accept_optimizer("init_state", optimizer)
    if not hasattr(seed, "dtype") and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise TypeError(f"init_state: seed must be an int or a key, got {describe(seed)}")
    check_params("init_state", params)
    key = seed if jnp.issubdtype(jnp.result_type(seed), jax.dtypes.prng_key) else jax.random.key(seed)
    return _compiled_first_state(task.init, task.stateful, optimizer, key, params)


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
    key = jax.random.clone(key)
    return TrainState(params, optimizer, optimizer.init(params), model_state, key, jnp.zeros([], jnp.int32))


def arrays_for(optimizer: GradientTransformation, params: Any) -> GradientTransformation:
    """The optimizer with its hyperparameters as arrays of the widest of the parameters' dtypes, float32 at least."""
    floats = [jnp.result_type(p) for p in jax.tree.leaves(params) if jnp.issubdtype(jnp.result_type(p), jnp.floating)]
    return arrays(optimizer, functools.reduce(jnp.promote_types, floats, jnp.float32))


# Of the task's parts: the cache would keep the data of a whole task alive.
_compiled_first_state = jax.jit(first_state, static_argnums=(0, 1))


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
    return jax.jit(plain_step(loss, stateful, compute_dtype), donate_argnums=0)


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
        return jnp.asarray(value, jnp.promote_types(jnp.result_type(value), jnp.float32)), aux

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
