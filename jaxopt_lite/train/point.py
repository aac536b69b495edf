"""A point of a run: some steps, an evaluation, the stopping rules and the next row of the history.

    fit        jit(point)
    seeds      jit(vmap(point))
    a sweep    jit(vmap(vmap(point)))

A `Run` is all that the next point depends on except the data, so a run is saved, resumed and stacked as one value.
"""

import dataclasses
import functools
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_lite import tree
from jaxopt_lite.core.method import Solver, Status
from jaxopt_lite.train.pieces import scores_in_pieces
from jaxopt_lite.train.plan import Plan, is_highest_best, watched
from jaxopt_lite.train.remat import policy_of
from jaxopt_lite.train.state import MOST_STEPS, TrainState
from jaxopt_lite.train.step import StepParts, measure_update, scores_key
from jaxopt_lite.train.task import Task, loss_of, scores
from jaxopt_lite.transforms.schedule_free import eval_params

__all__ = ["Run"]

_OWN = ("running", "max_steps", "target", "patience", "min_grad_norm", "non_finite", "interrupted", "out_of_data")
RUNNING, MAX_STEPS, TARGET, PATIENCE, MIN_GRAD_NORM, NON_FINITE, INTERRUPTED, OUT_OF_DATA = range(len(_OWN))
STATUSES = (*_OWN, *(status.name.lower() for status in Status))  # those of solvers come after `fit`'s own


class Tally(NamedTuple):
    """What was measured since the last point.

    Attributes:
        sums: of the loss and its metrics over the steps, scalars by name.
        last: learning rates and norms of the last step, float32 scalars by name.
        steps: how many steps were summed, int32.
    """

    sums: dict[str, jax.Array]
    last: dict[str, jax.Array]
    steps: jax.Array


class Monitor(NamedTuple):
    """What the stopping rules remember.

    Attributes:
        status: int32, an index into `STATUSES`.
        metric: uint32, a hash of the watched metric's name and mode.
        best: float32, the best score so far (higher is better); meaningless while best_step is -1.
        best_step: int32, the step after which it was measured.
        waited: int32, points without improvement since then.
        row: float32 by name, all that was measured at that point.
        kept: (params to evaluate, model_state) of that point where they are asked for, or ().
    """

    status: jax.Array
    metric: jax.Array
    best: jax.Array
    best_step: jax.Array
    waited: jax.Array
    row: dict[str, jax.Array]
    kept: Any


class Run(NamedTuple):
    """All that a run needs except its data.

    Attributes:
        state: after the last step.
        tally: what was measured in the point in progress.
        monitor: what the stopping rules remember; None in sweeps, where a policy decides by the ledger.
    """

    state: TrainState
    tally: Tally
    monitor: Monitor | None


class Limits(NamedTuple):
    """The numbers of the stopping rules. They are traced, so that one program serves all; an infinity is never met.

    Attributes:
        target: float32, of the watched metric; +inf is never met.
        patience: int32, points without improvement, at least 1; 2**31 - 1 is never met.
        min_grad_norm: float32, of the last gradient of a point; -inf is never met.
    """

    target: Any
    patience: Any
    min_grad_norm: Any

    @classmethod
    def of(cls, plan: Plan) -> "Limits":
        """The limits of a plan; what is None there is never met."""
        return cls(
            np.float32(np.inf if plan.target is None else plan.target),
            np.int32(MOST_STEPS if plan.patience is None else min(plan.patience, MOST_STEPS)),
            np.float32(-np.inf if plan.min_grad_norm is None else plan.min_grad_norm),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Rules:
    """What shapes the program of a run.

    Attributes:
        loss: of a task, in any of its forms.
        evaluate: of a task, or None.
        stateful: of a task, whether the loss carries a model state.
        kind: of the training data: "drawn" (batches are taken by index), "whole", or "stream" (a stack of batches).
        compute_dtype: of the loss; None for the dtypes of parameters and data.
        metric: the watched metric, None for the usual one.
        mode: "min", "max", or None where the end of the metric's name decides.
        decides: whether the metric decides anything.
        restore_best: whether the parameters of the best point are kept.
        norms: whether learning rates and norms are measured.
        accumulate: in how many pieces a batch is worked.
        eval_batch_size: examples in a piece of valid or test data; None evaluates them whole.
        remat: what the gradient computes again: False, True, or the name of a policy.
    """

    loss: Callable
    evaluate: Callable | None = None
    stateful: bool = False
    kind: str = "whole"
    compute_dtype: str | None = None
    metric: str | None = None
    mode: str | None = None
    decides: bool = False
    restore_best: bool = False
    norms: bool = True
    accumulate: int = 1
    eval_batch_size: int | None = None
    remat: bool | str = False

    @classmethod
    def of(cls, task: Task, plan: Plan, method: Any, norms: bool = True) -> "Rules":
        """The rules of a run of a plan; see `Plan.kind` for what is refused."""
        return cls(
            *(task.loss, task.evaluate, task.stateful, plan.kind(task, method), plan.compute_dtype),
            *(plan.metric, plan.mode, plan.decides, plan.restore_best, norms),
            *(plan.accumulate, plan.eval_batch_size, plan.remat),
        )

    @functools.cached_property
    def task(self) -> Task:
        """The functions as a task without data."""
        return Task(lambda key: None, self.loss, evaluate=self.evaluate, stateful=self.stateful)

    @functools.cached_property
    def step(self) -> StepParts:
        """One step; built once, so that a run traces it as seldom as possible."""
        return StepParts(self.task, self.compute_dtype, self.accumulate, policy_of(self.remat, "fit"))

    @property
    def static(self) -> tuple:
        """All but the functions."""
        return tuple(getattr(self, field.name) for field in dataclasses.fields(self)[2:])

    def derivative(self, state: TrainState, batch: Any) -> Any:
        """The loss with all that it returns, and a derivative: by both, its gradient is known."""
        loss = lambda p: loss_of(self.task, self.compute_dtype)(p, state.model_state, batch, state.key)
        if self.accumulate > 1:  # it sees pieces alone
            loss = self.step.objective(state, batch).value
        try:
            return jax.jvp(loss, (state.params,), (state.params,), has_aux=True)  # traced faster than the gradient
        except Exception:  # such as a custom_vjp, which has no forward derivative; or the loss itself raises again
            return jax.value_and_grad(loss, has_aux=True)(state.params)

    def batch(self, train: Any, order: Any, i: Any) -> Any:
        """The batch of the i-th step of a call."""
        if self.kind == "whole":
            return train
        index = order[i] if self.kind == "drawn" else i
        return jax.tree.map(lambda x: x[index], train)

    def score(self, state: TrainState, data: Any) -> dict[str, jax.Array]:
        """The scores of valid or test data, float32 scalars by name."""
        params = eval_params(state.opt_state, state.params)
        arguments = self.task, params, state.model_state, data, scores_key(state)
        return (
            scores(*arguments) if self.eval_batch_size is None else scores_in_pieces(*arguments, self.eval_batch_size)
        )

    def watch(self, names: Any) -> tuple[str, int]:
        """The watched metric, and the sign that makes its best value the highest."""
        metric = watched("fit", self.metric, names, self.decides)
        return metric, 1 if is_highest_best("fit", metric, self.mode) else -1


class Shapes(NamedTuple):
    """What steps and evaluations measure: shapes, by name."""

    sums: dict[str, Any]
    last: dict[str, Any]
    scores: dict[str, Any]

    @property
    def names(self) -> list[str]:
        """The names of a row of the history."""
        return [*(f"train.{name}" for name in self.sums), *self.last, *(f"valid.{name}" for name in self.scores)]


def measured(rules: Rules, state: TrainState, data: tuple[Any, Any], order: Any) -> Shapes:
    """The shapes that `begin` needs. Finding them traces the step, so call it once.

    Args:
        rules: of the run.
        state: before the first step, or its shapes.
        data: (train, valid), as for `point`.
        order: as for `point`.
    """
    train, valid = data

    def one(state, train, valid, order):
        _, sums, info = rules.step.advance(state, rules.batch(train, order, 0))
        last = measure_update(state, info.grads, info.updates) if rules.norms else {}
        return sums, last, {} if valid is None else rules.score(state, valid)

    return Shapes(*jax.eval_shape(one, state, train, valid, order))


def begin(rules: Rules, state: TrainState, shapes: Shapes, monitored: bool = True) -> Run:
    """The run before the next point.

    Args:
        rules: of the run.
        state: before the next step; its monitor is kept if it watches the same metric and mode.
        shapes: from `measured`.
        monitored: whether the run has stopping rules.
    """
    zero = jnp.zeros([], jnp.int32)
    blank = Tally(_zeros(shapes.sums), _zeros(shapes.last), jnp.copy(zero))
    if not monitored:
        return Run(state._replace(monitor=None), blank, None)
    metric, sign = rules.watch(shapes.names)
    kept = jax.tree.map(jnp.copy, (state.params, state.model_state)) if rules.restore_best else ()
    row = {name: jnp.zeros([], jnp.float32) for name in shapes.names}
    number = jnp.uint32(zlib.crc32(f"{metric} {sign}".encode()))
    new = Monitor(zero + RUNNING, number, jnp.zeros([], jnp.float32), zero - 1, jnp.copy(zero), row, kept)
    return Run(state._replace(monitor=None), blank, _remembered(state.monitor, new))


def _remembered(old: Monitor | None, new: Monitor) -> Monitor:
    """An earlier run's monitor, unless it watched another metric, or lacks what is to be kept."""
    if old is None:
        return new
    old = old._replace(kept=old.kept if new.kept else ())
    if jax.tree.structure(old) != jax.tree.structure(new):
        return new
    return tree.where(old.metric == new.metric, old._replace(status=new.status), new)


def point(
    rules: Rules, run: Run, data: tuple[Any, Any], order: Any, n: Any, ends: Any, limits: Limits | None
) -> tuple[Run, dict[str, jax.Array]]:
    """Advance a run by n steps; where the point ends with them, evaluate and apply the stopping rules.

    Args:
        rules: of the run.
        run: as `begin` or the point before left it.
        data: (train, valid): pytrees of arrays; of kind "stream", train is a stack of at least n batches.
        order: indices of the examples of each step, int32 [at least n, batch], for the kind "drawn"; else anything.
        n: number of steps, may be traced; 0 only ends the point.
        ends: whether the point ends with these steps, a bool, may be traced.
        limits: of the stopping rules; None where there is no monitor.

    Returns:
        The run, and the row: float32 scalars by name, and two bools: "measured", whether the point has ended (else all
        values are zero), and "finite", whether loss and parameters are finite.
    """
    train, valid = data
    run = (_solve if isinstance(run.state.optimizer, Solver) else _advance)(rules, run, train, order, n)
    ended = lambda: _conclude(rules, run, valid, limits)
    if ends is True:
        tally, monitor, row = ended()
    else:
        tally, monitor, row = jax.lax.cond(ends, ended, lambda: (run.tally, run.monitor, unmeasured(run)))
    return Run(run.state, tally, monitor), row


def unmeasured(run: Run) -> dict[str, jax.Array]:
    """The row of a monitored run where no point has ended: zeros."""
    assert run.monitor is not None
    no = jnp.array(False)
    return {**jax.tree.map(jnp.zeros_like, run.monitor.row), "measured": no, "finite": no}


def _advance(rules: Rules, run: Run, train: Any, order: Any, n: Any) -> Run:
    """n steps of a transformation."""
    step = rules.step

    def one(i, loop):
        state, sums, _ = loop
        state, now, info = step.advance(state, rules.batch(train, order, i))
        return state, jax.tree.map(jnp.add, sums, now), (info.value, info.grads) if rules.norms else ()

    begun = run.state, run.tally.sums
    if not rules.norms:
        state, sums, _ = jax.lax.fori_loop(0, n, one, (*begun, ()))
        return Run(state, Tally(sums, {}, run.tally.steps + n), run.monitor)

    # Run the body n - 1 times, then once more: it compiles once, and the state before the last step is kept, whose
    # update is recomputed for its norm. Returning updates from every step costs small models about 5 %.
    def all_but_the_last_then_the_last(k, loop):
        begun, _ = loop
        return jax.lax.fori_loop(k * jnp.maximum(n - 1, 0), n - 1 + k, one, begun), begun[0]

    slope = jax.tree.map(jnp.zeros_like, (run.tally.sums["loss"], run.state.params))
    loop = (*begun, slope), run.state
    (state, sums, slope), before = jax.lax.fori_loop(0, 2, all_but_the_last_then_the_last, loop)
    last = measure_update(before, slope[1], step.updates(before, rules.batch(train, order, n - 1), *slope))
    last = tree.where(n > 0, last, run.tally.last)
    return Run(state, Tally(sums, last, run.tally.steps + n), run.monitor)


def _solve(rules: Rules, run: Run, train: Any, order: Any, n: Any) -> Run:
    """At most n steps of a solver, which may end earlier. The tally holds what its last step measured, not a sum."""

    def unfinished(loop):
        i, state = loop
        return (i < n) & (state.opt_state.status == Status.RUNNING)

    _, state = jax.lax.while_loop(
        unfinished, lambda loop: (loop[0] + 1, rules.step.advance(loop[1], train)[0]), (jnp.int32(0), run.state)
    )
    found = state.opt_state.measured
    sums = {name: found[name].astype(total.dtype) for name, total in run.tally.sums.items()}
    return Run(state, Tally(sums, {name: found[name] for name in run.tally.last}, jnp.int32(1)), run.monitor)


def _conclude(rules: Rules, run: Run, valid: Any, limits: Limits | None) -> tuple[Tally, Monitor | None, dict]:
    """A blank tally, the monitor after the point, and its row."""
    state, tally = run.state, run.tally
    mean = lambda total: total / jnp.maximum(tally.steps, 1).astype(total.dtype)
    row = {f"train.{name}": mean(total) for name, total in tally.sums.items()} | tally.last
    finite = jnp.isfinite(row["train.loss"]) & tree.all_finite(state.params)
    if valid is not None:
        row |= {f"valid.{name}": value for name, value in rules.score(state, valid).items()}
    row = {name: jnp.asarray(value, jnp.float32) for name, value in row.items()}
    monitor = run.monitor
    if monitor is not None and limits is not None:
        monitor = _judge(rules, row, finite, state, monitor, limits)
    return jax.tree.map(jnp.zeros_like, tally), monitor, {**row, "measured": jnp.array(True), "finite": finite}


def _judge(rules: Rules, row: dict, finite: jax.Array, state: TrainState, monitor: Monitor, limits: Limits) -> Monitor:
    """The stopping rules, applied once a point."""
    metric, sign = rules.watch(row)
    score = row[metric] * sign
    # A metric can be finite where the model is not: the largest of NaNs is class 0, which has an accuracy.
    counts = finite & ~_has_nan(state.model_state) & jnp.isfinite(score)
    better = counts & ((monitor.best_step < 0) | (score > monitor.best))
    waited = jnp.where(better, 0, monitor.waited + 1)
    met = [
        (NON_FINITE, ~finite),
        (TARGET, counts & jnp.isfinite(limits.target) & (score >= limits.target * sign)),
        (MIN_GRAD_NORM, row["grad_norm"] <= limits.min_grad_norm),
    ]
    if isinstance(state.optimizer, Solver):
        solver = state.opt_state.status
        met.append((len(_OWN) + solver, solver != Status.RUNNING))
    met.append((PATIENCE, waited >= limits.patience))
    codes = [jnp.asarray(code, jnp.int32) for code, _ in met]
    return monitor._replace(
        status=jnp.select([is_met for _, is_met in met], codes, jnp.int32(RUNNING)),
        best=jnp.where(better, score, monitor.best),
        best_step=jnp.where(better, state.step, monitor.best_step),
        waited=waited,
        row=tree.where(better, row, monitor.row),
        kept=tree.where(better, (eval_params(state.opt_state, state.params), state.model_state), monitor.kept)
        if rules.restore_best
        else (),
    )


def _has_nan(model_state: Any) -> jax.Array:
    """Whether a model's state holds a NaN; an infinity may be meant."""
    floats = [x for x in jax.tree.leaves(model_state) if jnp.issubdtype(jnp.result_type(x), jnp.inexact)]
    return jnp.any(jnp.array([jnp.any(jnp.isnan(x)) for x in floats], bool))


def _zeros(shapes: Any) -> Any:
    return jax.tree.map(lambda s: jnp.zeros_like(s, s.dtype), shapes)  # laid out like them on an explicit mesh
