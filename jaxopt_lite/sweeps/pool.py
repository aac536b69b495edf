"""The states of a group's trials, and calls of its program on cohorts of them.

States are rows of arrays on each device, or on the host. A call gathers the rows of a cohort, advances them and
scatters them back, donated, so that temporary memory does not grow with the number of trials.
"""

import functools
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

HOST = -1  # the home of rows that do not lie on a device


class Pool:
    """States of trials, by their numbers. A row of arrays is the state of one trial, all its seeds.

    Args:
        shapes: a member's state as plain arrays.
        seeds: members of a trial; arrays have axes [rows, seeds, ...].
        devices: those on which cohorts run.
        spilled: whether rows lie on the host, for states too large for the devices.
    """

    def __init__(self, shapes: Sequence[jax.ShapeDtypeStruct], seeds: int, devices: Sequence[Any], spilled: bool):
        self._shapes = [((seeds, *s.shape), s.dtype) for s in shapes]
        self._devices, self._spilled = devices, spilled
        self._homes = [HOST] * len(devices) if spilled else list(range(len(devices)))  # where a device's rows lie
        self._rows: dict[int, list] = {home: self._blank(home, 0) for home in self._homes}
        self._size = dict.fromkeys(self._homes, 0)
        self._free: dict[int, list[int]] = {home: [] for home in self._homes}
        self._place: dict[int, tuple[int, int]] = {}

    @property
    def trials(self) -> list[int]:
        """Numbers of the trials that have a row."""
        return sorted(self._place)

    def reserve(self, device: int, n: int) -> None:
        """Make room for n more rows of a device."""
        home = self._homes[device]
        missing, old = n - len(self._free[home]), self._size[home]
        if missing > 0:
            join, more = np.concatenate if self._spilled else jnp.concatenate, max(missing, old)
            self._rows[home] = [join(pair) for pair in zip(self._rows[home], self._blank(home, more))]
            self._free[home] += range(old, old + more)
            self._size[home] += more

    def gather(self, trials: Sequence[int], width: int, device: int) -> list:
        """The rows of trials, [width, seeds, ...] on a device; slots beyond the trials repeat the first one.

        A trial that has no row gets one, with anything in it; one that ran on another device moves.
        """
        home = self._homes[device]
        elsewhere = [trial for trial in trials if self._place.get(trial, (home,))[0] != home]
        self._put(elsewhere, self.read(elsewhere), device)
        rows = self._places(trials, device)
        rows = np.array(rows + rows[:1] * (width - len(rows)), np.int32)
        if self._spilled:
            return jax.device_put([array[rows] for array in self._rows[home]], self._devices[device])
        return _gather(self._rows[home], rows)

    def scatter(self, trials: Sequence[int], packed: list, device: int) -> None:
        """Put the first slots back as the rows of trials."""
        home, rows = self._homes[device], np.array(self._places(trials, device), np.int32)
        if self._spilled:
            for array, new in zip(self._rows[home], packed):
                array[rows] = np.asarray(new)[: len(rows)]
        elif packed:
            beyond = np.full(len(packed[0]) - len(rows), self._size[home], np.int32)  # these are dropped
            self._rows[home] = _scatter(self._rows[home], packed, np.concatenate([rows, beyond]))

    def drop(self, trials: Sequence[int]) -> None:
        """Free the rows of trials that have one."""
        for trial in trials:
            if trial in self._place:
                home, row = self._place.pop(trial)
                self._free[home].append(row)

    def read(self, trials: Sequence[int]) -> list[np.ndarray]:
        """Copies of the rows of trials, [trials, seeds, ...]."""
        found = [np.empty((len(trials), *shape), dtype) for shape, dtype in self._shapes]
        for home, arrays in self._rows.items():
            slots = [i for i, trial in enumerate(trials) if self._place[trial][0] == home]
            for out, array in zip(found, arrays) if slots else ():
                out[slots] = np.asarray(array)[[self._place[trials[i]][1] for i in slots]]
        return found

    def write(self, trials: Sequence[int], arrays: Sequence[np.ndarray]) -> None:
        """Give trials rows with these values, on the devices in turn."""
        n = len(self._rows)
        for device in range(n):
            self._put(trials[device::n], [a[device::n] for a in arrays], device)

    def _put(self, trials: Sequence[int], arrays: Sequence[np.ndarray], device: int) -> None:
        """Give trials rows with these values on one device."""
        if len(trials):
            self.drop(trials)
            self.scatter(trials, [jax.device_put(array, self._devices[device]) for array in arrays], device)

    def _places(self, trials: Sequence[int], device: int) -> list[int]:
        """The rows of trials on a device; those that have none get one."""
        home, new = self._homes[device], [trial for trial in trials if trial not in self._place]
        self.reserve(device, len(new))
        self._place.update((trial, (home, self._free[home].pop())) for trial in new)
        return [self._place[trial][1] for trial in trials]

    def _blank(self, home: int, n: int) -> list:
        blank = [np.zeros((n, *shape), dtype) for shape, dtype in self._shapes]
        return blank if home == HOST else jax.device_put(blank, self._devices[home])


@jax.jit
def _gather(arrays, rows):
    return [array[rows] for array in arrays]


@functools.partial(jax.jit, donate_argnums=0)
def _scatter(arrays, new, rows):
    return [array.at[rows].set(x, mode="drop") for array, x in zip(arrays, new, strict=True)]


_CPU_WIDTH, _CPU_BYTES = 16, 2**24  # trials, and bytes of their states: more gains nothing, and leaves the caches
_WIDTH, _SHARE = 1024, 0.25  # elsewhere: trials, and the share of the device's memory that their states may take
_ROOM = 2**26  # bytes of states for which there is room from the beginning
_SPILL = 0.5  # of the device's memory: beyond it the states of a group lie on the host


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
        self.group, self.row, self.width, self.devices, self._stored = group, row, width, devices, stored
        self.begun = False  # whether any trial has advanced
        self.compiled: set[int] = set()  # the devices on which it has been compiled
        memory = _memory(devices[0])
        spilled = memory is not None and group.bytes * trials > _SPILL * memory * len(devices)
        self.pool = Pool(group.packed_shapes, group.plan.seeds, devices, spilled)
        for device in range(len(devices)):  # enough for most sweeps; growing later means compiling for another shape
            self.pool.reserve(device, math.ceil(min(trials, max(width, _ROOM // max(group.bytes, 1))) / len(devices)))
        self._orders = functools.lru_cache(maxsize=4096)(self._order_of)
        self._segments = functools.lru_cache(maxsize=4)(self._segment)
        self.program = group.program(width)
        self.points = group.points(width)

    @property
    def hashes(self) -> dict[str, str]:
        """Of what must be the same for trials to be comparable."""
        return {**self.group.test_hashes, "program": self.program.fingerprint, "data": self.group.digest}

    def launch(self, trials: np.ndarray, numbers: np.ndarray, step: int, points: int, reset: Any, device: int) -> Call:
        """Begin to advance some trials, int [m], with numbers [m, k], which all stand at one step.

        Args:
            trials: their numbers, at most `width`.
            numbers: what of their configs is traced.
            step: where they stand.
            points: how far they go.
            reset: whether the optimizer's state is to be made anew, bool [m].
            device: on which, by index.
        """
        width, m = self.width, len(trials)
        slots = np.concatenate([np.arange(m), np.zeros(width - m, np.int64)])  # the rest repeats the first
        mode = np.where(reset, RESET, KEEP) if step else np.full(m, FRESH)
        on, plan = self.devices[device], self.group.plan
        own = tuple(trials[slots].tolist()) if plan.independent else ()
        if (self.group.digest, on) not in self._stored:
            self._stored[self.group.digest, on] = jax.device_put(self.group.data, on)
        given = numbers[slots].astype(np.float32), mode[slots].astype(np.int8), self._stored[self.group.digest, on]
        drawn = self._segments(own, step, points), _keys(plan.seed, plan.seeds, own)
        packed = self.pool.gather(trials.tolist(), width, device)
        packed, *measured = self.program.run_on(on, packed, *given, *drawn, np.int32(step), np.int32(points))
        self.pool.scatter(trials.tolist(), packed, device)
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
    if device.platform == "cpu":
        most, room = _CPU_WIDTH, _CPU_BYTES
    else:
        most, room = _WIDTH, _SHARE * (_memory(device) or 2**32)
    most = max(1, min(most, int(room // max(group.bytes, 1))))
    return min(2 ** int(math.log2(most)), 2 ** math.ceil(math.log2(trials)))


def _memory(device: Any) -> int | None:
    """Bytes of a device's memory, where it is known."""
    found = device.memory_stats() if device.platform != "cpu" else None
    return found.get("bytes_limit") if found else None
