"""Running a group: cohorts of its trials, up to `width` of them at one step, on any of the devices."""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_lite.sweeps.member import FRESH, KEEP, RESET, Group, Measured
from jaxopt_lite.sweeps.pool import Pool
from jaxopt_lite.sweeps.program import run_key, unpack
from jaxopt_lite.train.calls import fetched
from jaxopt_lite.train.data import orders
from jaxopt_lite.train.programs import Program

__all__ = []

_CPU_WIDTH, _CPU_BYTES = 16, 2**24  # trials, and bytes of their states: more gains nothing, and leaves the caches
_WIDTH, _SHARE = 1024, 0.25  # elsewhere: trials, and the share of the device's memory that their states may take
_ROOM = 2**26  # bytes of states for which there is room from the beginning
_SPILL = 0.5  # of the device's memory: beyond it the states of a group lie on the host


class Call(NamedTuple):
    """A call of the program that is under way."""

    trials: np.ndarray
    step: int
    quanta: int
    measured: Measured


class Runner:
    """A group, its program for a width, and its pool.

    Args:
        group: what the trials train.
        row: the row of the table of one of its trials; it stands for the group where a sweep is saved.
        width: trials in a cohort.
        trials: how many trials there are now.
        devices: on which it runs.
        stored: data on devices by (hash, device), shared by the groups of a sweep.
    """

    def __init__(
        self, group: Group, row: np.ndarray, width: int, trials: int, devices: Sequence[Any], stored: dict[tuple, Any]
    ):
        self.group, self.row, self.width, self.devices, self._stored = group, row, width, devices, stored
        self.begun = False  # whether any trial has advanced
        memory = _memory(devices[0])
        spilled = memory is not None and group.bytes * trials > _SPILL * memory * len(devices)
        self.pool = Pool(group.packed, group.plan.seeds, devices, spilled)
        for device in range(len(devices)):  # enough for most sweeps; growing later means compiling for another shape
            self.pool.reserve(device, math.ceil(min(trials, max(width, _ROOM // max(group.bytes, 1))) / len(devices)))
        self._orders = functools.lru_cache(maxsize=4096)(self._order_of)
        self._segments = functools.lru_cache(maxsize=4)(self._segment)

    @functools.cached_property
    def program(self) -> Program:
        """The traced program."""
        return self.group.program(self.width)

    def launch(self, trials: np.ndarray, numbers: np.ndarray, step: int, quanta: int, reset: Any, device: int) -> Call:
        """Begin to advance some trials, int [m], with numbers [m, k], which all stand at one step.

        Args:
            trials: their numbers, at most `width`.
            numbers: what of their configs is traced.
            step: where they stand.
            quanta: how far they go.
            reset: whether the optimizer's state is to be made anew, bool [m].
            device: on which, by index.
        """
        width, m = self.width, len(trials)
        slots = np.concatenate([np.arange(m), np.zeros(width - m, np.int64)])  # the rest repeats the first
        mode = np.where(reset, RESET, KEEP) if step else np.full(m, FRESH)
        members = tuple(trials[slots].tolist()) if self.group.plan.independent else ()
        order = self._segments(members, step, quanta)
        packed = self.pool.gather(trials.tolist(), width, device)
        on, plan = self.devices[device], self.group.plan
        if (self.group.digest, on) not in self._stored:
            self._stored[self.group.digest, on] = jax.device_put(self.group.data, on)
        packed, measured = self.program.run_on(
            on,
            packed,
            numbers[slots].astype(np.float32),
            mode[slots].astype(np.int8),
            self._stored[self.group.digest, on],
            order,
            _keys(plan.seed, plan.seeds, members),
            np.int32(step),
            np.int32(quanta),
        )
        self.pool.scatter(trials.tolist(), packed, device)
        return Call(trials, step, quanta, measured)

    def collect(self, call: Call) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Wait for a call: curves [quanta, m, seeds] by name, and finite [quanta, m]."""
        m = len(call.trials)
        curves, finite = fetched((call.measured.curves, call.measured.finite))
        self.begun = True
        return {name: x[: call.quanta, :m] for name, x in curves.items()}, finite[: call.quanta, :m]

    def state(self, trial: int) -> Any:
        """The parameters, optimizer's state and model's state of one trial, with a leading axis of seeds."""
        return unpack(self._packed(trial), self.group.rows)

    def test_scores(self, trial: int, numbers: np.ndarray, step: int) -> dict[str, np.ndarray]:
        """The scores of one trial on the test data, float32 [seeds] by name."""
        plan = self.group.plan
        keys = _keys(plan.seed, plan.seeds, (trial,))[0] if plan.independent else _keys(plan.seed, plan.seeds, ())
        return self.group.test_scores(numbers, self._packed(trial), keys, step)

    def try_width(self, numbers: np.ndarray) -> None:
        """Run one quantum of new trials and forget them, for timing."""
        few = np.resize(np.arange(len(numbers)), self.width)
        self.collect(self.launch(few, numbers[few], 0, 1, np.zeros(self.width, bool), 0))
        self.begun = False
        self.pool.drop(few.tolist())

    def _packed(self, trial: int) -> list:
        return [jnp.asarray(array[0]) for array in self.pool.read([trial])]

    def _order_of(self, seed: int, trial: int | None) -> Any:
        key = run_key(seed)
        key = key if trial is None else jax.random.fold_in(key, trial)
        return orders(key, self.group.examples or 0, self.group.plan.batch_size or 0)

    def _segment(self, members: tuple[int, ...], step: int, quanta: int) -> np.ndarray:
        """The examples of a call's steps, int32 [(width,) seeds, steps, batch], padded to the longest call."""
        plan = self.group.plan
        if self.group.examples is None:
            return np.zeros((*([len(members)] if members else []), plan.seeds, 0), np.int32)
        steps = quanta * plan.eval_every
        seeds = range(plan.seed, plan.seed + plan.seeds)
        each = [[self._orders(seed, trial)(step, steps) for seed in seeds] for trial in members or (None,)]
        order = np.array(each if members else each[0], np.int32)
        room = [(0, 0)] * (order.ndim - 2) + [(0, self.group.quanta * plan.eval_every - steps), (0, 0)]
        return np.pad(order, room).reshape(*order.shape[:-2], self.group.quanta, plan.eval_every, order.shape[-1])


@functools.lru_cache(maxsize=64)
def _keys(seed: int, seeds: int, members: tuple[int, ...]) -> jax.Array:
    """Keys [seeds], those of `fit` with seed, seed + 1, ...; with members, keys [members, seeds] of their own."""
    keys = jnp.stack([run_key(seed + s) for s in range(seeds)])
    if not members:
        return keys
    return jnp.stack([jax.vmap(jax.random.fold_in, (0, None))(keys, trial) for trial in members])


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
