"""The compiled parts of the training loop.

A *point* is `eval_every` steps and an evaluation: one row of the history. Two programs make it. `advance` runs n steps,
n traced, so that every stretch is the same program; `conclude` evaluates, applies the stopping rules and starts the
next row. Stopping is decided on the device: a run that has ended stays as it is, so the host may be a point ahead.
"""

import dataclasses
import difflib
import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_lite import tree
from jaxopt_lite.train.step import MOST_STEPS, TrainState, floating, measure_update, scores_key, step_parts
from jaxopt_lite.train.task import Task, scores

__all__ = ["Plan"]

STATUSES = ("running", "max_steps", "target", "patience", "min_grad_norm", "non_finite", "interrupted", "out_of_data")
RUNNING, MAX_STEPS, TARGET, PATIENCE, MIN_GRAD_NORM, NON_FINITE, INTERRUPTED, OUT_OF_DATA = range(len(STATUSES))


_LARGEST = float(np.finfo(np.float32).max)


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long to train, on what batches, and when to stop: the arguments of `fit` that shape the program."""

    steps: int = 2000
    batch_size: int | None = 128
    eval_every: int = 200
    target: float | None = None
    patience: int | None = None
    min_grad_norm: float | None = None
    restore_best: bool = False
    metric: str | None = None
    mode: str | None = None
    compute_dtype: str | None = None

    def __post_init__(self):
        for name in ("steps", "batch_size", "eval_every", "patience"):
            value = getattr(self, name)
            if value is None and name in ("batch_size", "patience"):
                continue
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise ValueError(f"fit: {name} must be an int of at least 1, got {value!r:.80}")
        if self.steps > MOST_STEPS:
            raise ValueError(f"fit: steps must be at most {MOST_STEPS}, got {self.steps!r:.80}")
        for name, least in (("target", -np.inf), ("min_grad_norm", 0)):
            value = getattr(self, name)
            if value is None:
                continue
            number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
            if not (number and abs(value) <= _LARGEST and value >= least):
                raise ValueError(
                    f"fit: {name} must be a finite number{' of at least 0' * (not least)}, got {value!r:.80}"
                    + f"; scores are float32, at most {_LARGEST:.4g}" * (number and abs(value) > _LARGEST)
                )
            object.__setattr__(self, name, float(value))
        if self.mode not in (None, "min", "max"):
            raise ValueError(f"fit: mode must be 'min' or 'max', got {self.mode!r:.80}")
        if self.metric is not None and not isinstance(self.metric, str):
            raise ValueError(f"fit: metric must be the name of a column such as 'valid.loss', got {self.metric!r:.80}")
        if self.metric is not None and self.metric.startswith("test."):
            raise ValueError(f"fit: metric={self.metric!r} cannot decide when to stop, or it would no longer be a test")
        object.__setattr__(self, "compute_dtype", floating(self.compute_dtype, "fit", "compute_dtype"))

    @property
    def decides(self) -> bool:
        """Whether anything is decided by the watched metric."""
        return self.restore_best or (self.target, self.patience) != (None, None)


class Monitor(NamedTuple):
    """What the stopping rules remember."""

    status: jax.Array
    best: jax.Array  # the best score so far, where there is one
    best_point: jax.Array  # its place in the history, -1 before there is one
    point: jax.Array  # how many points were judged
    kept: Any  # (params, model_state) of the best point, where they are asked for


class Carry(NamedTuple):
    state: TrainState
    sums: dict[str, jax.Array]  # of the metrics of the point under way
    last: dict[str, jax.Array]  # measured of its last step: learning rates and norms
    steps: jax.Array  # in the point under way
    monitor: Monitor


class Programs(NamedTuple):
    begin: Callable
    advance: Callable
    conclude: Callable
    scores: Callable


@functools.lru_cache(maxsize=32)
def programs(loss: Callable, evaluate: Callable | None, stateful: bool, kind: str, plan: Plan, many: bool) -> Programs:
    """The compiled functions of a task; with `many`, over a leading axis of runs."""
    task = Task(lambda key: None, loss, evaluate=evaluate, stateful=stateful)
    step = step_parts(loss, stateful, plan.compute_dtype)

    def pick(data, order, i):
        if kind == "whole":
            return data
        index = order[i] if kind == "drawn" else i
        return jax.tree.map(lambda x: x[index], data)

    def begin(state, data, order):
        _, sums, (_, grads), updates = jax.eval_shape(step.advance, state, pick(data, order, 0))
        last = jax.eval_shape(measure_update, state, grads, updates)
        zero = jnp.zeros([], jnp.int32)
        kept = jax.tree.map(jnp.copy, (state.params, state.model_state)) if plan.restore_best else ()
        monitor = Monitor(zero + RUNNING, jnp.zeros([], jnp.float32), zero - 1, zero, kept)
        return Carry(state, _zeros(sums), _zeros(last), jnp.copy(zero), monitor)

    def advance(carry, data, order, n):
        def one(i, loop):
            state, sums, _ = loop
            state, measured, slope, _ = step.advance(state, pick(data, order, i))
            return state, jax.tree.map(jnp.add, sums, measured), slope

        # Twice the same loop, so that the last step is no other program, and the state before it is at hand: its update
        # is made again for the norm. To keep each step's updates would cost small models some 5% of their time.
        def all_but_the_last_then_the_last(k, loop):
            begun, _ = loop
            return jax.lax.fori_loop(k * (n - 1), n - 1 + k, one, begun), begun[0]

        def run():
            slope = _zeros(jax.eval_shape(step.advance, carry.state, pick(data, order, 0))[2])
            loop = (carry.state, carry.sums, slope), carry.state
            (state, sums, slope), before = jax.lax.fori_loop(0, 2, all_but_the_last_then_the_last, loop)
            last = measure_update(before, slope[1], step.updates(before, pick(data, order, n - 1), *slope))
            return carry._replace(state=state, sums=sums, last=last, steps=carry.steps + n)

        return jax.lax.cond(carry.monitor.status == RUNNING, run, lambda: carry)

    def conclude(carry, valid):
        state, running = carry.state, carry.monitor.status == RUNNING
        mean = lambda total: total / jnp.maximum(carry.steps, 1).astype(total.dtype)
        row = {f"train.{name}": mean(total) for name, total in carry.sums.items()} | carry.last
        if valid is not None:
            row |= {f"valid.{name}": value for name, value in score(state, valid).items()}
        monitor = jax.lax.cond(running, lambda: _judge(plan, row, state, carry.monitor), lambda: carry.monitor)
        # Zeros where the run has ended: with jax_debug_nans, a NaN would raise.
        row = {name: jnp.where(running, jnp.asarray(value, jnp.float32), 0) for name, value in row.items()}
        sums, last, steps = jax.tree.map(jnp.zeros_like, (carry.sums, carry.last, carry.steps))
        return Carry(state, sums, last, steps, monitor), {**row, "status": monitor.status, "measured": running}

    def score(state, data):
        return scores(task, state.params, state.model_state, data, scores_key(state))

    order_axis = 0 if kind == "drawn" else None
    over = jax.vmap if many else lambda f, in_axes: f
    return Programs(
        begin=jax.jit(over(begin, in_axes=(0, None, order_axis)), donate_argnums=0),
        advance=jax.jit(over(advance, in_axes=(0, None, order_axis, None)), donate_argnums=0),
        conclude=jax.jit(over(conclude, in_axes=(0, None)), donate_argnums=0),
        scores=jax.jit(over(score, in_axes=(0, None))),
    )


def _zeros(shapes: Any) -> Any:
    return jax.tree.map(lambda s: jnp.zeros_like(s, s.dtype), shapes)  # laid out like them on an explicit mesh


def watched(who: str, metric: str | None, names: Iterable[str], decides: bool = True) -> str:
    """The watched metric among those that are measured; it must be one of the valid data's where it decides."""
    names = sorted(names)
    valid = [name for name in names if name.startswith("valid.")]
    if metric is None:
        metric = next(name for name in ("valid.accuracy", "valid.loss", "train.loss") if name in names)
        if valid and metric == "train.loss" and decides:
            raise ValueError(
                f"{who}: valid.accuracy or valid.loss is to be watched, and evaluate reports neither; give metric "
                f"(there are {', '.join(valid)}) and mode"
            )
    elif metric.startswith("valid.") and not valid:
        raise ValueError(f"{who}: there is no metric {metric!r}, since the task has no valid data; give it valid=")
    elif metric not in names:
        near = difflib.get_close_matches(metric, names, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
        raise ValueError(f"{who}: there is no metric {metric!r}; {hint}")
    return metric


def is_highest_best(who: str, metric: str, mode: str | None) -> bool:
    """Whether a metric's highest value is its best: what `mode` says, or the end of the metric's name."""
    ends = {"accuracy": "max", "loss": "min"}
    mode = mode or next((found for end, found in ends.items() if metric.endswith(end)), None)
    if mode is None:
        raise ValueError(f"{who}: mode must be given for metric={metric!r}: 'min' or 'max'")
    return mode == "max"


def _judge(plan: Plan, row: dict, state: TrainState, monitor: Monitor) -> Monitor:
    """The stopping rules, looked at once a point."""
    metric = watched("fit", plan.metric, row, plan.decides)
    sign = 1 if is_highest_best("fit", metric, plan.mode) else -1
    score = jnp.asarray(row[metric], jnp.float32) * sign
    finite = jnp.isfinite(row["train.loss"]) & tree.all_finite(state.params)
    # A metric can be finite where the model is not: the largest of NaNs is class 0, which has an accuracy.
    counts = finite & ~_has_nan(state.model_state) & jnp.isfinite(score)
    better = counts & ((monitor.best_point < 0) | (score > monitor.best))
    best_point = jnp.where(better, monitor.point, monitor.best_point)
    rules = [(NON_FINITE, ~finite)]
    if plan.target is not None:
        rules.append((TARGET, counts & (score >= plan.target * sign)))
    if plan.min_grad_norm is not None:
        rules.append((MIN_GRAD_NORM, row["grad_norm"] <= plan.min_grad_norm))
    if plan.patience is not None:
        rules.append((PATIENCE, monitor.point - best_point >= min(plan.patience, MOST_STEPS)))
    return Monitor(
        status=jnp.select([met for _, met in rules], [jnp.int32(status) for status, _ in rules], jnp.int32(RUNNING)),
        best=jnp.where(better, score, monitor.best),
        best_point=best_point,
        point=monitor.point + 1,
        kept=tree.where(better, (state.params, state.model_state), monitor.kept) if plan.restore_best else (),
    )


def _has_nan(model_state: Any) -> jax.Array:
    """Whether a model's state holds a NaN; an infinity may be meant."""
    floats = [x for x in jax.tree.leaves(model_state) if jnp.issubdtype(jnp.result_type(x), jnp.inexact)]
    return jnp.any(jnp.array([jnp.any(jnp.isnan(x)) for x in floats], bool))
