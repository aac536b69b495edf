"""One training step, as a pure function of a state."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_lite import tree
from jaxopt_lite.core.arguments import check_int
from jaxopt_lite.core.hyperparameters import hyperparameters
from jaxopt_lite.core.loss_scale import loss_scale_of
from jaxopt_lite.core.method import Info, Objective, Solver, Status, advance
from jaxopt_lite.core.numbers import describe
from jaxopt_lite.train.calls import copied
from jaxopt_lite.train.pieces import InPieces, check_pieces
from jaxopt_lite.train.plan import floating
from jaxopt_lite.train.remat import policy_of, recomputing
from jaxopt_lite.train.state import SCORES, STEPS, Method, Solving, TrainState, solver_objective
from jaxopt_lite.train.task import Task, loss_of

__all__ = ["make_step"]


def make_step(
    loss: Callable | Task,
    *,
    stateful: bool = False,
    compute_dtype: Any = None,
    accumulate: int = 1,
    remat: bool | str = False,
) -> Callable:
    """Compile one step: (TrainState, batch) -> (TrainState, metrics).

    The state is donated: its arrays are gone after the call. The step's key is made from the run's key and the step's
    number. An optimizer that wants `value`, `grad` or `value_fn`, such as a line search, is given them.

    Args:
        loss: the loss of a task, in any of its forms, or the task itself.
        stateful: whether the loss carries a model state; of a task, its own `stateful` is used.
        compute_dtype: dtype for the loss, such as "bfloat16": parameters and floating data are cast to it, gradients
            come back in the parameters' dtypes. None computes in the dtypes of parameters and data.
        accumulate: in how many pieces, at least 1, a batch is worked, one after the other; see `fit`.
        remat: whether, or by what policy, results are computed again instead of kept for the gradient; see `fit`.

    Returns:
        The compiled step. Metrics are scalars: loss, the loss's own metrics, learning_rate (for each, if the optimizer
        has several), grad_norm and update_norm; loss_scale where there is a `dynamic_loss_scale`.

    Raises:
        TypeError: if loss is neither a function nor a task.
        ValueError: if compute_dtype is not a floating dtype, or accumulate is less than 1, more than the examples of a
            batch, or remat is no policy; if a solver is given one of the two.
    """
    if not callable(loss) and not isinstance(loss, Task):
        raise TypeError(f"make_step: loss must be a function or a Task, got {describe(loss)}")
    compute_dtype = floating(compute_dtype, "make_step", "compute_dtype")
    check_int("make_step", "accumulate", accumulate)
    policy = policy_of(remat, "make_step")
    task = loss if isinstance(loss, Task) else Task(lambda key: None, loss, stateful=stateful)
    compiled = jax.jit(plain_step(task, compute_dtype, accumulate, policy), donate_argnums=0)

    @functools.wraps(compiled)
    def step(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        return compiled(state, copied(batch))

    step.__dict__["lower"] = compiled.lower  # to inspect the program or its cost
    return step


def plain_step(task: Task, compute_dtype: Any, accumulate: int = 1, remat: str | None = None) -> Callable:
    """The step before it is compiled."""
    parts = StepParts(task, compute_dtype, accumulate, remat)

    def step(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        if isinstance(state.optimizer, Solver):  # one that has ended stays where it is
            is_running = state.opt_state.status == Status.RUNNING
            state = jax.lax.cond(is_running, lambda: parts.advance(state, batch)[0], lambda: state)
            return state, state.opt_state.measured
        after, measured, info = parts.advance(state, batch)
        return after, {**measured, **measure_update(state, info.grads, info.updates)}

    return step


class StepParts:
    """A step in two parts, for loops that measure the updates of few of their steps."""

    def __init__(self, task: Task, compute_dtype: Any, accumulate: int = 1, remat: str | None = None):
        self._task, self._compute_dtype, self._pieces, self._remat = task, compute_dtype, accumulate, remat
        loss = loss_of(task, compute_dtype)
        self._loss = loss if remat is None else recomputing(loss, remat)

    def advance(self, state: TrainState, batch: Any) -> tuple[TrainState, dict[str, jax.Array], Info]:
        """The next state, the loss and its metrics, and what the method saw."""
        if isinstance(state.optimizer, Solver):
            return self._solve(state, batch)
        objective = self.objective(state, batch)
        params, opt_state, info = advance(state.optimizer, objective, state.params, state.opt_state)
        metrics, model_state = info.aux
        after = state._replace(params=params, opt_state=opt_state, model_state=model_state, step=state.step + 1)
        return after, {"loss": info.value, **metrics}, info

    def updates(self, state: TrainState, batch: Any, value: jax.Array, grads: Any) -> Any:
        """The updates of a step, computed again: a step that does not return them is faster."""
        value_fn = lambda params: self.objective(state, batch).value(params)[0]
        given = {"value": value, "grad": grads, "value_fn": value_fn}
        if loss_scale_of(state.opt_state) is not None:
            given["loss_scale"] = 1.0  # what an `Info` holds is the gradient of the loss itself
        return state.optimizer.update(grads, state.opt_state, state.params, **given)[0]

    def objective(self, state: TrainState, batch: Any) -> Objective:
        """The loss of a batch, with the key of the next step."""
        key = jax.random.fold_in(jax.random.fold_in(state.key, STEPS), state.step)
        if self._pieces > 1:
            check_pieces(batch, self._pieces)
            return InPieces(self._loss, state.model_state, batch, key, self._pieces)
        return Objective(lambda params: self._loss(params, state.model_state, batch, key), has_aux=True)

    def _solve(self, state: TrainState, batch: Any) -> tuple[TrainState, dict[str, jax.Array], Info]:
        if self._pieces > 1 or self._remat is not None:
            given = f"accumulate={self._pieces}" if self._pieces > 1 else f"remat={self._remat!r}"
            raise ValueError(
                f"{given}: {state.optimizer.factory.spec.name} is a solver, which evaluates and differentiates the "
                "loss of all examples in ways of its own; leave it out, or give a transformation"
            )
        objective = solver_objective(self._task, self._compute_dtype, batch, state.key, state.params)
        params, method_state, info = advance(state.optimizer, objective, state.params, state.opt_state.method_state)
        measured = {"loss": info.value, **info.aux}
        opt_state = Solving(method_state, info.status, {**measured, **_norms(info.grads, info.updates)})
        return state._replace(params=params, opt_state=opt_state, step=state.step + 1), measured, info


def measure_update(state: TrainState, grads: Any, updates: Any) -> dict[str, jax.Array]:
    """What is measured of a step beside the loss, float32 scalars by name: rates, norms, and the scale of the loss."""
    scale = loss_scale_of(state.opt_state)
    scales = {} if scale is None else {"loss_scale": scale}
    return {**learning_rates(state.optimizer, state.opt_state), **_norms(grads, updates), **scales}


def _norms(grads: Any, updates: Any) -> dict[str, jax.Array]:
    norms = {"grad_norm": tree.global_norm(grads), "update_norm": tree.global_norm(updates)}
    return {name: jnp.asarray(norm, jnp.float32) for name, norm in norms.items()}


def scores_key(state: TrainState) -> jax.Array:
    """The key with which data are evaluated after a step."""
    return jax.random.fold_in(jax.random.fold_in(state.key, SCORES), state.step)


def learning_rates(optimizer: Method, opt_state: Any) -> dict[str, jax.Array]:
    """Today's learning rate, as `learning_rate`; where there are several, each under its path."""
    if isinstance(optimizer, Solver):
        return {}
    found = {
        path: jnp.asarray(value, jnp.float32)
        for path, value in hyperparameters(optimizer, opt_state).items()
        if path.rpartition(".")[2] == "learning_rate"
    }
    return dict(zip(["learning_rate"], found.values(), strict=True)) if len(found) == 1 else found
