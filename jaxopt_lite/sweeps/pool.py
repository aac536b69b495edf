"""The states of a group's trials; its program, traced for one width; and calls of it on cohorts of them.

A call uses up the states of its cohort and leaves the new ones in arrays of their own, so a cohort that stays together
is never copied. Where trials are put into other cohorts, their states go by the host.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_lite.core.programs import Program, digest
from jaxopt_lite.sweeps.program import FRESH, KEEP, KEY, RESET, Group, run_key, unpack
from jaxopt_lite.train.data import orders
from jaxopt_lite.transforms.schedule_free import eval_params

__all__ = []


class Pool:
    """States of trials, by their numbers: those of a cohort are arrays [width, seeds, ...], a slot for each trial.

    Args:
        shapes: a member's state as plain arrays.
        seeds: members of a trial.
        spilled: whether states wait on the host, because they are too large for the devices.

    Attributes:
        shapes: shape and dtype of each array of a trial's state.
        held: the cohort of each trial that has a state: the slots of its trials, and their arrays.
    """

    def __init__(self, shapes: Sequence[jax.ShapeDtypeStruct], seeds: int, spilled: bool):
        self.shapes = [((seeds, *s.shape), s.dtype) for s in shapes]
        self._spilled = spilled
        self.held: dict[int, tuple[dict[int, int], list]] = {}

    def gather(self, trials: list[int], width: int, device: Any) -> list:
        """The states of trials, [width, seeds, ...]; slots beyond the trials repeat the first one.

        A whole cohort is given as it is, on a device: the caller may use it up, and holds what comes of it. Any other
        is copied on the host; zeros where the first has no state.
        """
        if trials[0] not in self.held:
            return [np.zeros((width, *shape), dtype) for shape, dtype in self.shapes]
        slots, arrays = held = self.held[trials[0]]
        is_cohort = list(slots) == trials and all(self.held.get(trial) is held for trial in trials)
        if is_cohort and all(isinstance(array, jax.Array) for array in arrays):
            return jax.device_put(arrays, device)
        return self.read(trials + trials[:1] * (width - len(trials)))

    def hold(self, trials: Sequence[int], arrays: list) -> None:
        """Keep the states of trials, which stand in the first slots of arrays."""
        kept = [np.asarray(array) for array in arrays] if self._spilled else arrays
        self.held.update(dict.fromkeys(trials, ({trial: slot for slot, trial in enumerate(trials)}, kept)))

    def settle(self, trials: Sequence[int]) -> None:
        """Keep the states of trials alone, on the host, without the other slots of their cohorts."""
        self.hold(trials, self.read(trials))

    def read(self, trials: Sequence[int]) -> list[np.ndarray]:
        """Copies of the states of trials, [trials, seeds, ...]."""
        found = [np.empty((len(trials), *shape), dtype) for shape, dtype in self.shapes]
        for _, together in itertools.groupby(range(len(trials)), key=lambda i: id(self.held[trials[i]])):
            at = list(together)
            slots, arrays = self.held[trials[at[0]]]
            for out, array in zip(found, arrays, strict=True):
                out[at] = np.asarray(array)[[slots[trials[i]] for i in at]]
        return found


_CPU_WIDTH, _CPU_BYTES = 16, 2**24  # trials, and bytes of their states: more is no faster, beyond the caches
_WIDTH, _SHARE = 1024, 0.25  # elsewhere: trials, and the share of the device's memory that their states may take
_SPILL = 1 / 3  # of all devices' memory, beyond which a group's states wait on the host; old cohorts may double them
_INDICES = 2**22  # of examples that go to the device in one call


class Winner(NamedTuple):
    """The best trial's state, with a leading axis of seeds, and its scores on the test data, float32 [seeds]."""

    number: int
    params: Any
    model_state: Any
    test: dict[str, np.ndarray]


class Runner:
    """A group, its program for a width, and its pool.

    Args:
        group: what the trials train.
        row: the row of the table of one of its trials; it stands for the group where a sweep is saved.
        width: trials in a cohort; None for the usual number.
        trials: how many trials there are now.
        devices: on which it runs.
        stored: data on devices by (hash, device), shared by the groups of a sweep.

    Attributes:
        pool: the states of its trials.
        points: the most points of one call.
        order_shape: of the examples of a call's steps: [(width,) seeds, points, eval_every, batch].
        program: the traced program, `Group.cohort`.
        compiled: the devices on which it has been compiled.
    """

    def __init__(
        self, group: Group, row: np.ndarray, width: int | None, trials: int, devices: Sequence, stored: dict[tuple, Any]
    ):
        self.group, self.row, self._stored, plan = group, row, stored, group.plan
        self.width = width = width or _usual_width(group, trials, devices[0])
        self.compiled: set[Any] = set()
        spilled = group.bytes * trials > _SPILL * (_memory(devices[0]) or math.inf) * len(devices)
        self.pool = Pool(group.packed_shapes, plan.seeds, spilled)
        order_of = lambda seed, trial: orders(run_key(seed, trial), group.task.rows or 0, group.batch)
        self._orders = functools.lru_cache(maxsize=4096)(order_of)
        self._segments = functools.lru_cache(maxsize=4)(self._segment)
        runs = (width, plan.seeds) if plan.independent else (plan.seeds,)
        most = _INDICES // max(1, math.prod(runs) * plan.eval_every * group.batch)
        self.points = max(1, min(plan.steps // plan.eval_every, most))
        self.order_shape = (*runs, self.points, plan.eval_every, group.batch)
        shape = jax.ShapeDtypeStruct
        packed = [shape((width, *of_trial), dtype) for of_trial, dtype in self.pool.shapes]
        numbers, mode = shape((width, len(group.static.names)), np.float32), shape((width,), np.int8)
        order, keys, count = shape(self.order_shape, np.int32), shape(runs, KEY.dtype), shape((), np.int32)
        arguments = packed, numbers, mode, group.data, order, keys, count, count
        self.program = Program(functools.partial(group.cohort, self.points), arguments, donate=True)

    @functools.cached_property
    def hashes(self) -> dict[str, str]:
        """Of what must be the same for trials to be comparable.

        Without valid data the program does not contain how test data are scored, so it has a hash of its own then.
        """
        group, test = self.group, self.group.task.test
        found = {"test data": digest(test)}
        if test is not None and group.task.valid is None:
            score = functools.partial(group.test_scores, group.numbers, 0)
            found["evaluation of the test data"] = Program(score, (group.packed_shapes, KEY, test)).fingerprint
        return {**found, "program": self.program.fingerprint, "data": group.digest}

    def launch(self, trials: np.ndarray, numbers: np.ndarray, step: int, points: int, reset: Any, device: Any) -> list:
        """Begin to advance some trials, int [m], with numbers [m, k], which all stand at one step.

        Args:
            trials: their numbers, at most `width`.
            numbers: what of their configs is traced.
            step: where they stand.
            points: how far they go.
            reset: whether the optimizer's state is to be made anew, bool [m].
            device: on which.

        Returns:
            Curves and whether they are finite: see `Group.cohort`; the first m slots are those of the trials.
        """
        width, m = self.width, len(trials)
        slots = np.pad(np.arange(m), (0, width - m))  # the rest repeats the first
        mode = np.where(reset, RESET, KEEP) if step else np.full(m, FRESH)
        plan, place = self.group.plan, (self.group.digest, device)
        own = tuple(trials[slots].tolist()) if plan.independent else ()
        if place not in self._stored:
            self._stored[place] = jax.device_put(self.group.data, device)
        given = numbers[slots].astype(np.float32), mode[slots].astype(np.int8), self._stored[place]
        drawn = self._segments(own, step, points), _keys(plan.seed, plan.seeds, own)
        packed = self.pool.gather(trials.tolist(), width, device)
        packed, *measured = self.program.run_on(device, packed, *given, *drawn, np.int32(step), np.int32(points))
        self.pool.hold(trials.tolist(), packed)
        return measured

    def result(self, trial: int, numbers: np.ndarray, step: int) -> Winner:
        """What becomes of a trial that is the best."""
        group, plan, found = self.group, self.group.plan, {}
        packed = [jnp.asarray(array[0]) for array in self.pool.read([trial])]
        if group.task.test is not None:
            keys = _keys(plan.seed, plan.seeds, (trial,) if plan.independent else ()).reshape(-1)
            score = functools.partial(group.test_scores, numbers, step)
            found = jax.jit(jax.vmap(score, in_axes=(0, 0, None)))(packed, keys, group.task.test)
        rows = unpack(packed, group.row_shapes)
        params = jax.vmap(eval_params)(rows.opt_state, rows.params)
        return Winner(trial, params, rows.model_state, {f"test.{name}": np.asarray(x) for name, x in found.items()})

    def _segment(self, trials: tuple[int, ...], step: int, points: int) -> np.ndarray:
        """The examples of a call's steps, int32 [(width,) seeds, points, steps, batch], padded to the longest call."""
        plan, order = self.group.plan, np.zeros(self.order_shape, np.int32)
        if order.size:
            runs = itertools.product(trials or (None,), range(plan.seed, plan.seed + plan.seeds))
            each = [self._orders(seed, trial)(step, points * plan.eval_every) for trial, seed in runs]
            called = order[..., :points, :, :]
            called[:] = np.reshape(each, called.shape)
        return order


@functools.lru_cache(maxsize=64)
def _keys(seed: int, seeds: int, trials: tuple[int, ...]) -> jax.Array:
    """Keys [seeds], those of `fit` with seed, seed + 1, ...; with trials, keys [trials, seeds] of their own."""
    keys = jnp.stack([run_key(seed + s) for s in range(seeds)])
    of_trials = jax.vmap(jax.vmap(jax.random.fold_in, (0, None)), (None, 0))
    return of_trials(keys, np.array(trials)) if trials else keys


def _usual_width(group: Group, trials: int, device: Any) -> int:
    """The width of a group's cohorts, a power of 2: of backend, bytes of a trial's state and number of trials alone."""
    on_cpu = device.platform == "cpu"
    most, room = (_CPU_WIDTH, _CPU_BYTES) if on_cpu else (_WIDTH, _SHARE * (_memory(device) or 2**32))
    most = max(1, min(most, int(room // max(group.bytes, 1))))
    return min(2 ** int(math.log2(most)), 2 ** math.ceil(math.log2(trials)))


def _memory(device: Any) -> int | None:
    """Bytes of a device's memory, where it is known."""
    found = device.memory_stats() if device.platform != "cpu" else None
    return found.get("bytes_limit") if found else None
