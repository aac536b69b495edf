"""The states of a group's trials, and calls of its program on cohorts of them.

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

from jaxopt_lite.sweeps.program import FRESH, KEEP, RESET, Group, Rows, run_key, unpack
from jaxopt_lite.train.calls import fetched
from jaxopt_lite.train.data import orders

__all__ = []

Cohort = tuple[dict[int, int], list]  # the slot of each of its trials, and their states


class Pool:
    """States of trials, by their numbers: those of a cohort are arrays [width, seeds, ...], a slot for each trial.

    Args:
        shapes: a member's state as plain arrays.
        seeds: members of a trial.
        spilled: whether states wait on the host, because they are too large for the devices.
    """

    def __init__(self, shapes: Sequence[jax.ShapeDtypeStruct], seeds: int, spilled: bool):
        self._shapes = [((seeds, *s.shape), s.dtype) for s in shapes]
        self._spilled = spilled
        self._held: dict[int, Cohort] = {}

    @property
    def trials(self) -> list[int]:
        """Numbers of the trials that have a state."""
        return sorted(self._held)

    def gather(self, trials: list[int], width: int, device: Any) -> list:
        """The states of trials, [width, seeds, ...]; slots beyond the trials repeat the first one.

        A whole cohort is given as it is, on a device: the caller may use it up, and holds what comes of it. Any other
        is copied on the host; zeros where the first has no state.
        """
        if trials[0] not in self._held:
            return [np.zeros((width, *shape), dtype) for shape, dtype in self._shapes]
        slots, arrays = held = self._held[trials[0]]
        is_cohort = list(slots) == trials and all(self._held.get(trial) is held for trial in trials)
        if is_cohort and all(isinstance(array, jax.Array) for array in arrays):
            return jax.device_put(arrays, device)
        return self.read(trials + trials[:1] * (width - len(trials)))

    def hold(self, trials: Sequence[int], arrays: list) -> None:
        """Keep the states of trials, which stand in the first slots of arrays."""
        kept = [np.asarray(array) for array in arrays] if self._spilled else arrays
        self._held.update(dict.fromkeys(trials, ({trial: slot for slot, trial in enumerate(trials)}, kept)))

    def settle(self, trials: Sequence[int]) -> None:
        """Keep the states of trials alone, on the host, without the other slots of their cohorts."""
        self.hold(trials, self.read(trials))

    def drop(self, trials: Sequence[int]) -> None:
        """Forget the states of trials that have one."""
        for trial in trials:
            self._held.pop(trial, None)

    def read(self, trials: Sequence[int]) -> list[np.ndarray]:
        """Copies of the states of trials, [trials, seeds, ...]."""
        found = [np.empty((len(trials), *shape), dtype) for shape, dtype in self._shapes]
        for _, together in itertools.groupby(range(len(trials)), key=lambda i: id(self._held[trials[i]])):
            at = list(together)
            slots, arrays = self._held[trials[at[0]]]
            for out, array in zip(found, arrays, strict=True):
                out[at] = np.asarray(array)[[slots[trials[i]] for i in at]]
        return found


_CPU_WIDTH, _CPU_BYTES = 16, 2**24  # trials, and bytes of their states: more gains nothing, and leaves the caches
_WIDTH, _SHARE = 1024, 0.25  # elsewhere: trials, and the share of the device's memory that their states may take
_SPILL = 1 / 3  # of the device's memory: beyond it the states of a group, of which old cohorts may double, are spilled


class Call(NamedTuple):
    """A call of the program that is under way."""

    trials: np.ndarray
    step: int
    points: int
    measured: list  # curves and whether they are finite: see `Group`


class Runner:
    """A group, its program for a width, and its pool.

    Args:
        group: what the trials train.
        row: the row of the table of one of its trials; it stands for the group where a sweep is saved.
        width: trials in a cohort.
        trials: how many trials there are now.
        devices: on which it runs.
        stored: data on devices by (hash, device), shared by the groups of a sweep.

    Attributes:
        program: the traced program.
        points: the most points of one call.
    """

    def __init__(
        self, group: Group, row: np.ndarray, width: int, trials: int, devices: Sequence[Any], stored: dict[tuple, Any]
    ):
        self.group, self.row, self.width, self._stored = group, row, width, stored
        self.begun = False  # whether any trial has advanced
        self.compiled: set[Any] = set()  # the devices on which it has been compiled
        memory = _memory(devices[0])
        spilled = memory is not None and group.bytes * trials > _SPILL * memory * len(devices)
        self.pool = Pool(group.packed_shapes, group.plan.seeds, spilled)
        self._orders = functools.lru_cache(maxsize=4096)(self._order_of)
        self._segments = functools.lru_cache(maxsize=4)(self._segment)
        self.program = group.program(width)
        self.points = group.points(width)

    @property
    def hashes(self) -> dict[str, str]:
        """Of what must be the same for trials to be comparable."""
        return {**self.group.test_hashes, "program": self.program.fingerprint, "data": self.group.digest}

    def launch(self, trials: np.ndarray, numbers: np.ndarray, step: int, points: int, reset: Any, device: Any) -> Call:
        """Begin to advance some trials, int [m], with numbers [m, k], which all stand at one step.

        Args:
            trials: their numbers, at most `width`.
            numbers: what of their configs is traced.
            step: where they stand.
            points: how far they go.
            reset: whether the optimizer's state is to be made anew, bool [m].
            device: on which.
        """
        width, m = self.width, len(trials)
        slots = np.concatenate([np.arange(m), np.zeros(width - m, np.int64)])  # the rest repeats the first
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
        return Call(trials, step, points, measured)

    def collect(self, call: Call) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Wait for a call: curves [points, m, seeds] by name, and finite [points, m]."""
        m = len(call.trials)
        curves, finite = fetched(call.measured)
        self.begun = True
        return {name: x[: call.points, :m] for name, x in curves.items()}, finite[: call.points, :m]

    def result(self, trial: int, numbers: np.ndarray, step: int) -> tuple[Rows, dict[str, np.ndarray]]:
        """The state of one trial, with a leading axis of seeds, and its scores on the test data, float32 [seeds]."""
        plan, packed = self.group.plan, [jnp.asarray(array[0]) for array in self.pool.read([trial])]
        keys = _keys(plan.seed, plan.seeds, (trial,))[0] if plan.independent else _keys(plan.seed, plan.seeds, ())
        return unpack(packed, self.group.row_shapes), self.group.test_scores(numbers, packed, keys, step)

    def _order_of(self, seed: int, trial: int | None) -> Any:
        key = run_key(seed)
        key = key if trial is None else jax.random.fold_in(key, trial)
        return orders(key, self.group.examples or 0, self.group.plan.batch_size or 0)

    def _segment(self, trials: tuple[int, ...], step: int, points: int) -> np.ndarray:
        """The examples of a call's steps, int32 [(width,) seeds, points, steps, batch], padded to the longest call."""
        plan = self.group.plan
        shape, steps = self.group.order_shape(self.width), points * plan.eval_every
        order = np.zeros(shape, np.int32)
        if self.group.examples is not None:
            seeds = range(plan.seed, plan.seed + plan.seeds)
            each = [[self._orders(seed, trial)(step, steps) for seed in seeds] for trial in trials or (None,)]
            order[..., :points, :, :] = np.reshape(each, (*shape[:-3], points, *shape[-2:]))
        return order


@functools.lru_cache(maxsize=64)
def _keys(seed: int, seeds: int, trials: tuple[int, ...]) -> jax.Array:
    """Keys [seeds], those of `fit` with seed, seed + 1, ...; with trials, keys [trials, seeds] of their own."""
    keys = jnp.stack([run_key(seed + s) for s in range(seeds)])
    if not trials:
        return keys
    return jnp.stack([jax.vmap(jax.random.fold_in, (0, None))(keys, trial) for trial in trials])


def usual_width(group: Group, trials: int, device: Any) -> int:
    """The width of a group's cohorts, a power of 2: of backend, bytes of a trial's state and number of trials alone."""
    on_cpu = device.platform == "cpu"
    most, room = (_CPU_WIDTH, _CPU_BYTES) if on_cpu else (_WIDTH, _SHARE * (_memory(device) or 2**32))
    most = max(1, min(most, int(room // max(group.bytes, 1))))
    return min(2 ** int(math.log2(most)), 2 ** math.ceil(math.log2(trials)))


def _memory(device: Any) -> int | None:
    """Bytes of a device's memory, where it is known."""
    found = device.memory_stats() if device.platform != "cpu" else None
    return found.get("bytes_limit") if found else None
