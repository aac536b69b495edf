"""The training loop: a generator that says what happened.

It is pure: it yields a `Point` for each row of the history and takes back whether to stop. Files, clocks, signals and
progress belong to whoever drives it.
"""

import dataclasses
import functools
from collections.abc import Generator, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_lite.core.transformation import GradientTransformation
from jaxopt_lite.train import data as batches
from jaxopt_lite.train.programs import (
    INTERRUPTED,
    MAX_STEPS,
    OUT_OF_DATA,
    RUNNING,
    STATUSES,
    Carry,
    Plan,
    Programs,
    programs,
)
from jaxopt_lite.train.step import TrainState, init_state
from jaxopt_lite.train.task import Task

__all__ = ["Point", "Result", "training"]

_STACK = 16  # batches of an iterator that go to the device together


class Point(NamedTuple):
    """One row of the history: the step, and float32 values by name (with seeds, arrays [seeds])."""

    step: int
    metrics: dict[str, np.ndarray]
    state: TrainState | None


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run has come to. With `seeds`, arrays have a leading axis, and status and steps are lists.

    Attributes:
        params: the last parameters, or the best ones where `restore_best` was asked for.
        state: the last state; `fit(..., state=result.state)` goes on from it.
        history: "step" int [points], and float32 [points] (or [seeds, points]) for each measured name. train.* are
            means over the steps of a point; learning_rate, grad_norm and update_norm are those of its last step.
        status: why it ended: max_steps, target, patience, min_grad_norm, non_finite, interrupted or out_of_data.
        steps: number of steps done.
        metrics: the last value of each column, and test.* for the parameters returned.
        message: the status in a sentence, with advice.
    """

    params: Any
    state: TrainState
    history: dict[str, np.ndarray]
    status: Any
    steps: Any
    metrics: dict[str, Any]
    message: str


def training(
    task: Task,
    optimizer: Any,
    plan: Plan,
    seed: int = 0,
    seeds: int | None = None,
    params: Any = None,
    state: TrainState | None = None,
    ahead: bool = True,
) -> Generator[Point, bool | None, Result]:
    """Train, yielding a `Point` for each row of the history; send True to stop; returns the `Result`.

    Args:
        task: what is to be learned.
        optimizer: a transformation of this package or of Optax.
        plan: lengths, batches and stopping rules.
        seed: of the run.
        seeds: train this many runs side by side, with seeds seed, seed + 1, ...; None trains one, without the axis.
        params: parameters to begin with.
        state: a state to go on from, in place of optimizer, seed and params.
        ahead: let the device begin a point before the one before it is looked at. If false, a point holds the state.
    """
    optimizer = GradientTransformation.accept(optimizer, "fit", "optimizer")
    keys = _check(task, plan, seed, seeds)
    if state is None:
        start = functools.partial(init_state, task, optimizer, params=params)
        state = start(keys[0]) if seeds is None else jax.vmap(start)(jnp.stack(keys))
    else:
        state = jax.tree.map(lambda x: jnp.array(x, copy=True), state)  # the steps donate it
        keys = [state.key] if seeds is None else list(state.key)
    kind = "stream" if task.train_is_iterator else "whole" if task.rows is None or plan.batch_size is None else "drawn"
    rules = dataclasses.replace(plan, steps=1, batch_size=1, eval_every=1)  # the lengths do not shape the program
    compiled = programs(task.loss, task.evaluate, task.stateful, kind, rules, seeds is not None)

    done = int(np.max(np.asarray(state.step)))
    carry, waiting, rows, stop, wanted = None, None, [], False, done + plan.steps
    for data, order, n, point_ends in _stretches(task, plan, keys, done, seeds is not None):
        if carry is None:
            carry = compiled.begin(state, data, order)
        carry = compiled.advance(carry, data, order, n)
        done += n
        if not point_ends:
            continue
        carry, measured = compiled.conclude(carry, task.valid)
        if ahead:  # look at the point before, while the device works on this one
            measured, waiting = waiting, (done, measured)
        else:
            measured = done, measured
        if measured is not None:
            stop = yield from _emit(*measured, None if ahead else carry.state, rows)
        if stop:
            break
    if waiting is not None:
        yield from _emit(*waiting, None, rows)
    if carry is None:
        raise ValueError("fit: the iterator of batches gave none")
    how = INTERRUPTED if stop else OUT_OF_DATA if done < wanted else MAX_STEPS
    return _result(task, plan, compiled, carry, rows, seeds is not None, how)


def _stretches(task: Task, plan: Plan, keys: list, first: int, many: bool) -> Iterator[tuple]:
    """Steps that go to the device together: (data, order, how many, whether a point ends with them)."""
    take = batches.stacks(task.train, _STACK) if task.train_is_iterator else None
    drawn = task.rows is not None and plan.batch_size is not None
    for begin in range(first, first + plan.steps, plan.eval_every):
        n = min(plan.eval_every, first + plan.steps - begin)
        if take is None:
            order = None
            if drawn:
                order = np.stack([batches.batch_order(key, task.rows, plan.batch_size, begin, n) for key in keys])
                order = np.pad(order, ((0, 0), (0, plan.eval_every - n), (0, 0)))
            yield task.train, order if many or order is None else order[0], n, True
            continue
        left = n
        while left > 0:
            stack, got, more = take(left)
            left -= got
            if got:
                yield stack, None, got, left == 0 or not more
            if not more:
                return


def _emit(step: int, measured: dict, state: Any, rows: list) -> Generator[Point, bool | None, bool]:
    """Yield a point; return whether to stop: because the driver says so, or because every run has ended."""
    values = {name: np.asarray(value) for name, value in jax.device_get(measured).items()}
    status = values.pop("status")
    if rows and np.all(rows[-1][2] != RUNNING):
        return True  # the device was a point ahead, and did nothing in it
    rows.append((step, values, status))
    asked = yield Point(step, values, state)
    return bool(asked) or bool(np.all(status != RUNNING))


def _check(task: Task, plan: Plan, seed: int, seeds: int | None) -> list[jax.Array]:
    """The keys of the runs, if the arguments fit together."""
    if not isinstance(task, Task):
        raise TypeError(f"fit: task must be a Task, got {task!r}")
    if seeds is not None and (isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1):
        raise ValueError(f"fit: seeds must be an int of at least 1 (the number of runs), got {seeds!r}")
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"fit: seed must be an int of at least 0, got {seed!r}")
    if task.rows is not None and plan.batch_size is not None and plan.batch_size > task.rows:
        raise ValueError(
            f"fit: batch_size={plan.batch_size} is more than the {task.rows} training examples; batch_size=None takes "
            "all of them at each step"
        )
    return [jax.random.key(int(seed) + i) for i in range(seeds or 1)]


_MESSAGES = {
    "max_steps": "All steps were done.",
    "target": "The target was reached.",
    "patience": "The watched metric has not improved for `patience` points.",
    "min_grad_norm": "The gradient's norm fell to min_grad_norm.",
    "non_finite": "The loss or a parameter is no longer finite: lower the learning rate, warm it up, clip the gradient "
    "(clip_by_global_norm), or leave bad steps out (skip_not_finite); jax.config.update('jax_debug_nans', True) finds "
    "the operation.",
    "interrupted": "The run was interrupted; what was measured so far is here.",
    "out_of_data": "The iterator of batches ended before the last step.",
}


def _result(task: Task, plan: Plan, compiled: Programs, carry: Carry, rows: list, many: bool, how: int) -> Result:
    codes = np.where(np.asarray(carry.monitor.status) == RUNNING, how, np.asarray(carry.monitor.status))
    names = [STATUSES[code] for code in np.atleast_1d(codes)]
    state = carry.state
    params = carry.monitor.best_params if plan.restore_best else state.params
    history = {"step": np.array([step for step, _, _ in rows])}
    for name in rows[0][1]:
        history[name] = np.stack([values[name] for _, values, _ in rows], axis=-1)
    metrics = {name: _last(column) for name, column in history.items() if name != "step"}
    if task.test is not None:
        tested = compiled.scores(state._replace(params=params), task.test)
        metrics |= {f"test.{name}": np.asarray(value) for name, value in tested.items()}
    return Result(
        params=params,
        state=state,
        history=history,
        status=names if many else names[0],
        steps=np.asarray(state.step).tolist(),
        metrics={name: value if many else float(value) for name, value in metrics.items()},
        message=" ".join(_MESSAGES[name] for name in dict.fromkeys(names)),
    )


def _last(column: np.ndarray) -> np.ndarray:
    """The last value of each run that was measured: points after a run's end are NaN."""
    measured = np.cumsum(~np.isnan(column), axis=-1).argmax(axis=-1)
    return np.take_along_axis(column, np.expand_dims(measured, -1), axis=-1)[..., 0]
