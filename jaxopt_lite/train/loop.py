"""The training loop: a generator that yields the points of a run.

It is pure: it yields a `Point` for each row of the history and takes back a `Reply`; files, clocks, signals and
progress are the driver's. A driver that wants to save is given a `Snapshot`, from which the run resumes bit for bit.
"""

import functools
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_lite.core.hyperparameters import hyperparameters
from jaxopt_lite.core.numbers import describe
from jaxopt_lite.core.programs import Program, Same
from jaxopt_lite.train.calls import fetched
from jaxopt_lite.train.pipeline import Position
from jaxopt_lite.train.plan import Plan
from jaxopt_lite.train.point import (
    INTERRUPTED,
    MAX_STEPS,
    OUT_OF_DATA,
    RUNNING,
    Limits,
    Rules,
    Run,
    begin,
    measured,
    point,
    unmeasured,
)
from jaxopt_lite.train.result import Result, Row, judged_alone, result_of, score_program
from jaxopt_lite.train.source import Source
from jaxopt_lite.train.state import MOST_STEPS, Method, TrainState, accept_method, adopted, check_seed, init_state
from jaxopt_lite.train.task import Task, check_task

__all__ = ["Pause", "Point", "Reply", "Snapshot", "training"]


class Point(NamedTuple):
    """One row of the history.

    Attributes:
        step: the number of steps done.
        metrics: float32 by name, arrays of shape (), or [seeds].
        state: after the step; None where the device works ahead of the points.
    """

    step: int
    metrics: dict[str, np.ndarray]
    state: TrainState | None


class Snapshot(NamedTuple):
    """All that a run needs to resume. The next steps use up its arrays: save or copy them before.

    Attributes:
        run: parameters, optimizer, its state, key, step, and what the stopping rules remember.
        rows: the rows of the history so far.
        first: the step at which the run began, 0 unless it resumed from a state.
        taken: the number of batches taken so far, those of an iterator included.
        position: the place in an iterator or a loader after them; None where there is none.
    """

    run: Run
    rows: tuple[Row, ...]
    first: int
    taken: int
    position: Position | None = None


class Pause(NamedTuple):
    """The device has done the steps after which a pause was asked for, and nothing more.

    Attributes:
        step: their number.
    """

    step: int


class Reply(NamedTuple):
    """The answer of a driver to a point.

    Attributes:
        save: yield a `Snapshot` as soon as nothing is in flight on the device, which may be a point later.
        stop: end the run, with the status "interrupted".
        wait: let the device begin nothing more before the next point is answered, where a point takes so long that the
            gap between two does not count, and `stop` should.
    """

    save: bool = False
    stop: bool = False
    wait: bool = False


def training(
    task: Task,
    optimizer: Any,
    plan: Plan,
    seed: int = 0,
    seeds: int | None = None,
    params: Any = None,
    state: TrainState | Run | None = None,
    ahead: bool = True,
    snapshot: Snapshot | None = None,
    save_last: bool = False,
    prefetch: int = 0,
    pauses: Sequence[int] = (),
) -> Generator[Point | Snapshot | Pause, Reply | None, Result]:
    """Train, yielding a `Point` for each row of the history, to be answered by a `Reply` or None.

    Args:
        task: what is to be learned.
        optimizer: a transformation of this package or of Optax, or a solver.
        plan: lengths, batches and stopping rules.
        seed: of the run, an int in [0, 2**32).
        seeds: train this many runs side by side, with seeds seed, seed + 1, ...; None trains one, without the axis.
        params: parameters to begin with, in place of those that `task.init` makes.
        state: a state or a run to resume from, for plan.steps more steps; it holds the optimizer (give the same or
            None), the key, the parameters and what the stopping rules remember.
        ahead: let the device begin a point before the one before it is read. If false, a point holds the state.
        snapshot: resume the run that it was taken of, up to plan.steps in all, given the same arguments; an iterator of
            batches is brought to its place: by its state where it has one, else the batches taken are left out.
        save_last: yield a `Snapshot` at the end, however the run ends.
        prefetch: how many stacks of an iterator's batches a thread makes ahead, at least 0.
        pauses: steps, counted as in the history, after which a `Pause` is yielded, except after the last. Results do
            not depend on them.

    Returns:
        The `Result`.

    Raises:
        TypeError, ValueError: when the generator is first asked for a point, if the arguments do not fit together, or a
            solver is given mini-batches, an iterator or a task with a model state.
    """
    check_arguments(task, plan, seed, seeds)
    if snapshot is not None:
        state, params = snapshot.run, None
    again = functools.partial(_begun, task, optimizer, seed, seeds, params, state)
    begun = again()
    rules = Rules.of(task, plan, begun.optimizer)
    done = int(np.max(np.asarray(begun.step)))
    first, rows = (done, []) if snapshot is None else (snapshot.first, list(snapshot.rows))
    last = first + plan.steps
    if last > MOST_STEPS:
        raise ValueError(
            f"fit: steps must be at most {MOST_STEPS - first} from a state at step {first}, got {plan.steps}"
        )

    taken, position = (0, None) if snapshot is None else (snapshot.taken, snapshot.position)
    cuts = [step - first for step in pauses]
    run, programs, waiting, sent, reply = None, None, [], [], Reply()
    with Source(task, plan, rules.kind, begun, seeds is not None, taken, position, prefetch, cuts) as source:
        for data, order, n, ends in source.stretches(done - first):
            arguments = (data, task.valid), order, np.int32(n), np.bool_(ends), Limits.of(plan)
            if run is None or programs is None:
                programs, run, row = _start(rules, begun, again, arguments, task.test, snapshot)
            else:
                if len(sent) == 2:  # one call waits for the device while another runs, and no more
                    fetched(sent.pop(0))
                run, row = programs.point(run, *arguments)
            if rules.kind == "stream":
                sent.append(row["step"])
            done += n
            if done in pauses and done < last:
                fetched(run.tally.steps)
                yield Pause(done)
            if not ends:
                continue
            waiting.append(row)
            # Read the point before, while the device works on this one.
            while waiting and not reply.stop and (len(waiting) > 1 or not ahead or reply.save or reply.wait):
                reply = yield from _emit(waiting.pop(0), None if ahead else _state_of(plan, run), rows, reply)
            if reply.stop:
                break
            if reply.save:
                yield Snapshot(run, tuple(rows), first, source.taken, source.position)
                reply = reply._replace(save=False)
        stopped = reply.stop
        for row in waiting:
            reply = yield from _emit(row, None, rows, reply)
        how = MAX_STEPS if done >= last else INTERRUPTED if stopped else OUT_OF_DATA
        if run is None:
            if snapshot is None:
                raise ValueError("fit: the iterator of batches yielded none")
            # It was taken after the last step.
            run = Run(begun._replace(monitor=None), snapshot.run.tally, begun.monitor)
        if reply.save or save_last:
            yield Snapshot(run, tuple(rows), first, source.taken, source.position)
    return result_of(task, plan, rules, run, rows, how, None if programs is None else programs.test)


class _Programs:
    """The compiled functions of a run, all traced before any work is done, so that a fault in one loses nothing."""

    def __init__(self, rules: Rules, shapes: tuple, many: bool):
        begun, arguments, test = shapes
        data, order, *_ = arguments
        over = jax.vmap if many else lambda f, in_axes: f
        axis = 0 if rules.kind == "drawn" else None

        def start(state, order):
            return begin(rules, state, measured(rules, state, data, order))

        def advance(run, data, order, n, ends, limits):
            # A run that has ended stays as it is, so that the host may be a point behind.
            run, row = jax.lax.cond(
                run.monitor.status == RUNNING,
                lambda run: point(rules, run, data, order, n, ends, limits),
                lambda run: (run, unmeasured(run)),
                run,
            )
            return run, {**row, "status": run.monitor.status, "step": run.state.step}

        self.begin = Program(over(start, in_axes=(0, axis)), (begun, order), donate=True)
        in_axes = (0, None, axis, None, None, None)
        self.point = Program(over(advance, in_axes=in_axes), (self.begin.shapes, *arguments), donate=True)
        self.test = None if test is None else score_program(rules, judged_alone(self.begin.shapes.state), test, many)


_KEPT = 64
_kept: dict[tuple, _Programs] = {}  # the most recently used ones last


def _start(
    rules: Rules, begun: TrainState, again: Callable, arguments: tuple, test: Any, snapshot: Snapshot | None
) -> tuple[_Programs, Run, dict]:
    """The programs of a run, the run after its first call, and the row.

    To trace a whole point takes long beside a short run. So only the user's functions are traced, and programs that
    were made of functions of the same text, for the same shapes, are used again. While it traces, the device begins
    with the programs of the last run of the same function objects; if these compute something else now, it begins anew.
    """
    many = begun.key.ndim > 0
    shapes = _shapes((begun, arguments, test))
    here = rules.static, jax.tree.structure(shapes), tuple(map(str, jax.tree.leaves(shapes))), many
    objects = id(rules.loss), id(rules.evaluate), *here

    def first_call(programs, begun):
        run = programs.begin(begun, arguments[1])
        if snapshot is not None:  # a run that had ended stays ended
            run = _with_status(run, snapshot.run)
        return programs.point(run, *arguments)

    likely = _kept.get(objects)
    if likely is not None:
        started = first_call(likely, begun)
    traced = _trace_functions(rules, shapes, many)
    computed = *traced.signature, *here
    if traced.calls_back:  # what is called back is known by the objects alone; they are kept, so that no id is reused
        computed = *computed, Same(rules.loss), Same(rules.evaluate)
    programs = _kept.get(computed) or _Programs(rules, shapes, many)
    if likely is None or programs is not likely:
        started = first_call(programs, again() if likely is not None else begun)
    for key in (objects, computed):
        _kept.pop(key, None)
        _kept[key] = programs
    for oldest in list(_kept)[:-_KEPT]:
        _kept.pop(oldest, None)
    return programs, *started


def _trace_functions(rules: Rules, shapes: tuple, many: bool) -> Program:
    """The user's functions as a program that is traced and not run, to know what they compute."""
    begun, ((train, valid), order, *_), test = shapes
    one = lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype) if many else x
    order = jax.tree.map(one, order) if rules.kind == "drawn" else order
    held_out = test if valid is None else valid

    def compute(state, train, order, data):
        batch = rules.batch(train, order, 0)
        return rules.derivative(state, batch), {} if data is None else rules.score(state, data)

    return Program(compute, (jax.tree.map(one, begun), train, order, held_out))


def _with_status(run: Run, before: Run) -> Run:
    assert run.monitor is not None and before.monitor is not None
    return run._replace(monitor=run.monitor._replace(status=jnp.copy(before.monitor.status)))


def _shapes(arrays: Any) -> Any:
    return jax.tree.map(jax.typeof, arrays)


def _emit(row: dict, state: Any, rows: list, before: Reply) -> Generator[Point, Reply | None, Reply]:
    """Yield a point; return the driver's answer, with `stop` also where every run has ended."""
    values = {name: np.asarray(value) for name, value in fetched(row).items()}
    status, is_measured, step = values.pop("status"), values.pop("measured"), int(values.pop("step").max())
    del values["finite"]
    if rows and np.all(rows[-1].status != RUNNING) and not is_measured.any():
        return before._replace(stop=True)  # the device was a point ahead, and did nothing in it
    if not is_measured.all():  # some runs have ended before this point
        values = {name: np.where(is_measured, value, np.float32(np.nan)) for name, value in values.items()}
    values = dict(sorted(values.items(), key=lambda item: (not item[0].startswith(("train.", "valid.")), item[0])))
    rows.append(Row(step, values, status, is_measured))
    asked = yield Point(step, dict(values), state)  # a copy, because a callback may change the dict
    asked = asked if isinstance(asked, Reply) else Reply(stop=asked is True)
    return Reply(before.save or asked.save, asked.stop or bool(np.all(status != RUNNING)), asked.wait)


def _state_of(plan: Plan, run: Run) -> TrainState:
    """The state with what the stopping rules remember, if there are any."""
    return run.state._replace(monitor=run.monitor if plan.decides else None)


def check_arguments(task: Task, plan: Plan, seed: int, seeds: int | None) -> None:
    """Raise unless the arguments fit together."""
    check_task("fit", task)
    if not isinstance(plan, Plan):
        raise TypeError(f"training: plan must be a Plan, got {describe(plan)}")
    if seeds is not None and (isinstance(seeds, bool) or not isinstance(seeds, (int, np.integer)) or seeds < 1):
        raise ValueError(f"fit: seeds must be an int of at least 1 (the number of runs), got {seeds!r:.80}")
    check_seed("fit: seed", seed, seeds or 1)
    plan.kind(task)


def _begun(
    task: Task, optimizer: Any, seed: int, seeds: int | None, params: Any, state: TrainState | Run | None
) -> TrainState:
    """The state before the first step: a new one, or a copy of the one to resume from, which all else must fit."""
    if state is None:
        optimizer = accept_method("fit", optimizer)
        keys = [jax.random.key(int(seed) + i) for i in range(seeds or 1)]
        start = functools.partial(init_state, task, optimizer, params=params)
        return start(keys[0]) if seeds is None else jax.vmap(start)(jnp.stack(keys))
    if isinstance(state, Run):
        state = state.state._replace(monitor=state.monitor)
    if not isinstance(state, TrainState):
        raise TypeError(f"fit: state must be a TrainState, such as the state of a result, got {describe(state)}")
    if params is not None:
        raise ValueError("fit: state holds params already; give one of the two, or state._replace(params=...)")
    state = adopted("fit", state)
    runs = state.key.shape[0] if state.key.ndim else None
    if runs != seeds:
        raise ValueError(f"fit: seeds must be {runs}, as in the run that the state is of, got {seeds}")
    if optimizer is not None:
        _check_same_optimizer(accept_method("fit", optimizer), state.optimizer)
    return state


def _check_same_optimizer(given: Method, kept: Method) -> None:
    """Raise unless the optimizer given is the one in the state."""
    old, new, changed = hyperparameters(kept), hyperparameters(given), ["what they chain"]
    if jax.tree.structure(given) == jax.tree.structure(kept):
        numbers = {name: value for name, value in old.items() if jnp.issubdtype(value.dtype, jnp.number)}
        changed = [n for n, value in numbers.items() if np.any(np.asarray(new[n], value.dtype) != np.asarray(value))]
    if changed:
        raise ValueError(
            f"fit: the optimizer given and that in state differ in {', '.join(changed)}; pass optimizer=None to resume "
            "with the one in `state`, or put yours into it: state._replace(optimizer=jaxopt_lite.arrays(optimizer))"
        )
