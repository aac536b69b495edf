"""The training loop: a generator that says what happened.

It is pure: it yields a `Point` for each row of the history and takes back whether to stop. Files, clocks, signals and
progress belong to whoever drives it.
"""

import dataclasses
import functools
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_lite.core.hyperparameters import hyperparameters
from jaxopt_lite.core.numbers import describe
from jaxopt_lite.core.transformation import GradientTransformation
from jaxopt_lite.train import data as batches
from jaxopt_lite.train.calls import fetched
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
    watched,
)
from jaxopt_lite.train.step import MOST_STEPS, TrainState, accept_optimizer, adopted, check_seed, init_state
from jaxopt_lite.train.task import Task, check_task

__all__ = ["Point", "Result", "training"]

_STACK = 16  # batches of an iterator that go to the device together
_INDICES = 2**22  # of examples that go there together


class Point(NamedTuple):
    """One row of the history: the step, and float32 values by name (with seeds, arrays [seeds])."""

    step: int
    metrics: dict[str, np.ndarray]
    state: TrainState | None


@dataclasses.dataclass(frozen=True, repr=False)
class Result:
    """What a run has come to. With `seeds`, arrays have a leading axis, and status and steps are lists.

    Attributes:
        params: the last parameters, or those of the best point where `restore_best` was asked for.
        model_state: the model's state that belongs to params, None for tasks that have none.
        state: the last state; `fit(..., state=result.state)` goes on from it.
        history: "step" int [points], and float32 [points] (or [seeds, points]) for each measured name. train.* are
            means over the steps of a point; learning_rate, grad_norm and update_norm are those of its last step.
        status: why it ended: max_steps, target, patience, min_grad_norm, non_finite, interrupted or out_of_data.
        steps: number of steps done.
        metrics: what was measured at the point that params are of, and test.*, evaluated with them. Where the best
            point was asked for and none was finite, params are the first ones, valid.* are evaluated with them, and
            what only a step measures is NaN.
        message: the status in a sentence, with advice.
    """

    params: Any
    model_state: Any
    state: TrainState
    history: dict[str, np.ndarray]
    status: Any
    steps: Any
    metrics: dict[str, Any]
    message: str

    def __repr__(self) -> str:
        many = isinstance(self.status, list)
        ended = f"{len(self.status)} runs: {', '.join(sorted(set(self.status)))}" if many else self.status
        names = [name for name in self.metrics if name.startswith(("train.", "valid.", "test."))]
        said = [f"{'mean ' * many}{name} {np.mean(self.metrics[name]):.5g}" for name in names]
        return f"Result({', '.join([ended, f'{np.max(self.steps)} steps', *said])})"


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
        state: a state to go on from; it holds the optimizer (give the same or None), the key and the parameters.
        ahead: let the device begin a point before the one before it is looked at. If false, a point holds the state.
    """
    _check(task, plan, seed, seeds)
    many = seeds is not None
    if state is None:
        optimizer = accept_optimizer("fit", optimizer)
        keys = [jax.random.key(int(seed) + i) for i in range(seeds or 1)]
        start = functools.partial(init_state, task, optimizer, params=params)
        begun = jax.vmap(start)(jnp.stack(keys)) if many else start(keys[0])
    else:
        begun = _begun(state, optimizer, seeds, params)
    kind = "stream" if task.train_is_iterator else "whole" if task.rows is None or plan.batch_size is None else "drawn"
    rules = dataclasses.replace(plan, steps=1, batch_size=1, eval_every=1)  # the lengths do not shape the program
    compiled = programs(task.loss, task.evaluate, task.stateful, kind, rules, many)

    done = int(np.max(np.asarray(begun.step)))
    if done + plan.steps > MOST_STEPS:
        raise ValueError(
            f"fit: steps must be at most {MOST_STEPS - done} from a state at step {done}, got {plan.steps}"
        )
    carry, waiting, rows, stop, wanted = None, None, [], False, done + plan.steps
    for data, order, n, point_ends in _stretches(task, plan, kind, begun, many):
        if carry is None:
            carry = compiled.begin(begun, data, order)
            _rehearse(task, compiled, carry)
        if n:
            if kind == "stream":  # one stack ahead of the device, and no more
                fetched(carry.steps)
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
    how = MAX_STEPS if done == wanted else INTERRUPTED if stop else OUT_OF_DATA
    return _result(task, plan, compiled, carry, rows, many, how)


def _rehearse(task: Task, compiled: Programs, carry: Carry) -> None:
    """Trace what comes after a point and at the end, so that a fault there is found before any work is done."""
    compiled.conclude.eval_shape(carry, task.valid)  # in this form JAX remembers it from run to run
    if task.test is not None:
        compiled.scores.eval_shape(carry.state, task.test)


def _stretches(task: Task, plan: Plan, kind: str, state: TrainState, many: bool) -> Iterator[tuple]:
    """Steps that go to the device together: (data, order, how many, whether a point ends with them)."""
    take = lambda at, wanted: (task.train, None, wanted, True)
    if kind == "drawn":
        take = _drawn(task, plan, state, many)
    elif kind == "stream":
        take = _stream(task.train, min(_STACK, plan.eval_every))
    for begin in range(0, plan.steps, plan.eval_every):
        at, end, more = begin, min(begin + plan.eval_every, plan.steps), True
        while at < end and more:
            data, order, n, more = take(at, end - at)
            at += n
            if at > begin:
                yield data, order, n, at == end or not more
        if not more:
            return


def _stream(source: Any, size: int) -> Callable:
    """Batches as they come: a function (steps done, steps wanted) -> (data, order, steps, whether there are more)."""
    stacks = batches.stacks(source, size)

    def take(at, wanted):
        stack, n = stacks(wanted)
        return stack, None, n, n == min(size, wanted)

    return take


def _drawn(task: Task, plan: Plan, state: TrainState, many: bool) -> Callable:
    """Batches drawn from the examples, each run's from where it has got to: such a function, too."""
    rows, batch_size = task.rows or 0, plan.batch_size or 0
    orders = [batches.orders(key, rows, batch_size) for key in (state.key if many else [state.key])]
    firsts = np.atleast_1d(state.step).tolist()
    size = min(plan.eval_every, max(1, _INDICES // (len(orders) * batch_size)))

    def take(at, wanted):
        n = min(size, wanted)
        order = np.stack([order(first + at, n) for order, first in zip(orders, firsts, strict=True)])
        if n < size:
            order = np.pad(order, ((0, 0), (0, size - n), (0, 0)))  # of one shape, for one program
        return task.train, order if many else order[0], n, True

    return take


def _emit(step: int, row: dict, state: Any, rows: list) -> Generator[Point, bool | None, bool]:
    """Yield a point; return whether to stop: because the driver says so, or because every run has ended."""
    values = {name: np.asarray(value) for name, value in fetched(row).items()}
    status, measured = values.pop("status"), values.pop("measured")
    if not measured.all():  # some runs have ended before this point
        values = {name: np.where(measured, value, np.float32(np.nan)) for name, value in values.items()}
    values = dict(sorted(values.items(), key=lambda item: (not item[0].startswith(("train.", "valid.")), item[0])))
    if rows and np.all(rows[-1][2] != RUNNING):
        return True  # the device was a point ahead, and did nothing in it
    rows.append((step, values, status))
    asked = yield Point(step, dict(values), state)  # whose dict may be changed by who is given it
    return bool(asked) or bool(np.all(status != RUNNING))


def _check(task: Task, plan: Plan, seed: int, seeds: int | None) -> None:
    """Raise unless the arguments fit together."""
    check_task("fit", task)
    if seeds is not None and (isinstance(seeds, bool) or not isinstance(seeds, (int, np.integer)) or seeds < 1):
        raise ValueError(f"fit: seeds must be an int of at least 1 (the number of runs), got {seeds!r:.80}")
    check_seed("fit: seed", seed, seeds or 1)
    if task.rows is not None and plan.batch_size is not None and plan.batch_size > task.rows:
        raise ValueError(
            f"fit: batch_size={plan.batch_size} is more than the {task.rows} training examples; batch_size=None takes "
            "all of them at each step"
        )


def _begun(state: Any, optimizer: Any, seeds: int | None, params: Any) -> TrainState:
    """A copy of a state to resume from; raise unless all else that was given agrees with it."""
    if not isinstance(state, TrainState):
        raise TypeError(f"fit: state must be a TrainState, such as the state of a result, got {describe(state)}")
    if params is not None:
        raise ValueError("fit: state holds params already; give one of the two, or state._replace(params=...)")
    state = adopted("fit", state)
    runs = state.key.shape[0] if state.key.ndim else None
    if runs != seeds:
        raise ValueError(f"fit: seeds must be {runs}, as in the run that the state is of, got {seeds}")
    if optimizer is not None:
        _check_same_optimizer(accept_optimizer("fit", optimizer), state.optimizer)
    return state


def _check_same_optimizer(given: GradientTransformation, kept: GradientTransformation) -> None:
    """Raise unless the optimizer given is the one in the state."""
    old, new, changed = hyperparameters(kept), hyperparameters(given), ["what they chain"]
    if jax.tree.structure(given) == jax.tree.structure(kept):
        numbers = {name: value for name, value in old.items() if jnp.issubdtype(value.dtype, jnp.number)}
        changed = [n for n, value in numbers.items() if np.any(np.asarray(new[n], value.dtype) != np.asarray(value))]
    if changed:
        raise ValueError(
            f"fit: the optimizer given and that in state differ in {', '.join(changed)}; give None to go on with that "
            "in state, or put yours into it: state._replace(optimizer=jaxopt_lite.arrays(optimizer))"
        )


_MESSAGES = {
    "max_steps": "All steps were done.",
    "target": "The target was reached.",
    "patience": "{metric} has not improved for {patience} points{best}.",
    "min_grad_norm": "The gradient's norm fell to min_grad_norm.",
    "non_finite": "The loss or a parameter is no longer finite: lower the learning rate, warm it up, clip the gradient "
    "(clip_by_global_norm), or leave bad steps out (skip_not_finite); if the loss rose from the first step on, look at "
    "the gradient's sign; jax.config.update('jax_debug_nans', True) finds the operation.",
    "interrupted": "The run was interrupted; what was measured so far is here.",
    "out_of_data": "The iterator of batches ended before the last step; give one that begins again at its end.",
}


def _message(names: list[str], **facts: Any) -> str:
    counts, of = {name: names.count(name) for name in names}, len(names)
    return " ".join(f"{n} of {of}: " * (n < of) + _MESSAGES[name].format(**facts) for name, n in counts.items())


def _best(history: dict, metric: str, point: int) -> str:
    """The best point of a run, for its message."""
    if point < 0:
        return "; none of its values was finite"
    return f"; its best was {history[metric][point]:.5g}, at step {history['step'][point]}"


def _of_none(unjudged: np.ndarray) -> str:
    """The sentence about runs without a finite point, where the best one was asked for."""
    if not unjudged.any():
        return ""
    of = "" if unjudged.all() else f"{unjudged.sum()} of {unjudged.size}: "
    return f" {of}No point was finite, so params are those that the run began with."


def _result(task: Task, plan: Plan, compiled: Programs, carry: Carry, rows: list, many: bool, how: int) -> Result:
    codes = np.where(np.asarray(carry.monitor.status) == RUNNING, how, np.asarray(carry.monitor.status))
    names = [STATUSES[code] for code in np.atleast_1d(codes)]
    state, point = carry.state, np.asarray(carry.monitor.point) - 1  # the last one before the run ended
    params, model_state, unjudged = state.params, state.model_state, np.zeros(point.shape, bool)
    if plan.restore_best:
        params, model_state = carry.monitor.kept
        unjudged = np.asarray(carry.monitor.best_point) < 0
        point = np.where(unjudged, point, carry.monitor.best_point)
    history = {"step": np.array([step for step, _, _ in rows])}
    for name in rows[0][1]:
        history[name] = np.stack([values[name] for _, values, _ in rows], axis=-1)
    columns = [(name, column) for name, column in history.items() if name != "step"]
    metrics = {name: np.take_along_axis(column, point[..., None], axis=-1)[..., 0] for name, column in columns}
    score = functools.partial(compiled.scores, state._replace(params=params, model_state=model_state))
    if unjudged.any():
        first = {f"valid.{name}": value for name, value in score(task.valid).items()} if task.valid is not None else {}
        metrics = {name: np.where(unjudged, first.get(name, np.float32(np.nan)), x) for name, x in metrics.items()}
    untested = ""
    if task.test is not None:
        try:
            metrics |= {f"test.{name}": np.asarray(value) for name, value in fetched(score(task.test)).items()}
        except jax.errors.JaxRuntimeError as error:  # most often for lack of memory: the run is not lost by it
            untested = f" test could not be evaluated: {error!s:.200}"
    metric = watched("fit", plan.metric, rows[0][1], plan.decides)
    best = "" if many else _best(history, metric, int(carry.monitor.best_point))
    return Result(
        params=params,
        model_state=model_state,
        state=state,
        history=history,
        status=names if many else names[0],
        steps=np.asarray(state.step).tolist(),
        metrics={name: value if many else float(value) for name, value in metrics.items()},
        message=_message(names, metric=metric, patience=plan.patience, best=best) + _of_none(unjudged) + untested,
    )
