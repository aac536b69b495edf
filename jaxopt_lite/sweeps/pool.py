"""Where the states of a group's trials lie: rows of arrays on each device, or on the host.

A call gathers a cohort's rows, advances them and scatters them back, donated, so that temporary memory does not grow
with the number of trials.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = []

HOST = -1


class Pool:
    """States of trials, by their numbers.

    Args:
        shapes: a member's state as plain arrays.
        seeds: members of a trial; arrays have axes [rows, seeds, ...].
        devices: those on which cohorts run.
        spilled: whether rows lie on the host, for states too large for the devices.
    """

    def __init__(self, shapes: Sequence[jax.ShapeDtypeStruct], seeds: int, devices: Sequence[Any], spilled: bool):
        self._shapes = [((seeds, *s.shape), s.dtype) for s in shapes]
        self._devices, self.spilled = devices, spilled
        homes = [HOST] if spilled else range(len(devices))
        self._rows: dict[int, list] = {home: [self._blank(home, 0, s) for s in self._shapes] for home in homes}
        self._free: dict[int, list[int]] = {home: [] for home in homes}
        self._place: dict[int, tuple[int, int]] = {}

    def __contains__(self, trial: int) -> bool:
        return trial in self._place

    @property
    def trials(self) -> list[int]:
        """Numbers of the trials that have a row."""
        return sorted(self._place)

    def reserve(self, device: int, n: int) -> None:
        """Make room for n more rows."""
        home = self._home(device)
        missing = n - len(self._free[home])
        if missing > 0:
            old = self._capacity(home)
            more = max(missing, old)
            self._rows[home] = [
                _concatenate(a, self._blank(home, more, s)) for a, s in zip(self._rows[home], self._shapes)
            ]
            self._free[home] += range(old, old + more)

    def gather(self, trials: Sequence[int], width: int, device: int) -> list:
        """The rows of trials, [width, seeds, ...] on a device; slots beyond the trials repeat the first one.

        A trial that has no row gets one, with anything in it.
        """
        home = self._home(device)
        for trial in trials:
            if trial not in self._place:
                self.reserve(device, 1)
                self._place[trial] = home, self._free[home].pop()
        places = [self._place[trial] for trial in trials]
        places += [places[0]] * (width - len(places))
        found = None
        for source in sorted({at for at, _ in places}, key=lambda at: at != home):
            here = np.array([at == source for at, _ in places])
            rows = np.array([row if at == source else 0 for at, row in places], np.int32)
            part = self._take(source, rows, device)
            found = part if found is None else _select(here, part, found)
        for trial, (at, row) in zip(trials, places):
            if at != home:  # it moves to where it runs
                self._free[at].append(row)
                self.reserve(device, 1)
                self._place[trial] = home, self._free[home].pop()
        return found or []

    def scatter(self, trials: Sequence[int], packed: list, device: int) -> None:
        """Put the first slots back as the rows of trials."""
        home = self._home(device)
        rows = np.array([self._place[trial][1] for trial in trials], np.int32)
        if self.spilled:
            for array, new in zip(self._rows[home], packed):
                array[rows] = np.asarray(new)[: len(rows)]
            return
        width = len(packed[0]) if packed else len(rows)
        beyond = np.full(width - len(rows), self._capacity(home), np.int32)  # these are dropped
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
            rows = [self._place[trials[i]][1] for i in slots]
            if slots:
                for out, array in zip(found, arrays):
                    out[slots] = np.asarray(array)[rows]
        return found

    def write(self, trials: Sequence[int], arrays: Sequence[np.ndarray]) -> None:
        """Give trials rows with these values, on the devices in turn."""
        for device in range(1 if self.spilled else len(self._devices)):
            mine = list(trials)[device :: len(self._rows)]
            self.drop(mine)
            if mine:
                new = [a[device :: len(self._rows)] for a in arrays]
                self.gather(mine, len(mine), device)
                self.scatter(mine, [jax.device_put(a, self._devices[device]) for a in new], device)

    def _home(self, device: int) -> int:
        return HOST if self.spilled else device

    def _capacity(self, home: int) -> int:
        return len(self._rows[home][0]) if self._rows[home] else 0

    def _blank(self, home: int, n: int, shape: tuple) -> Any:
        blank = np.zeros((n, *shape[0]), shape[1])
        return blank if home == HOST else jax.device_put(blank, self._devices[home])

    def _take(self, home: int, rows: np.ndarray, device: int) -> list:
        if self.spilled:
            return jax.device_put([array[rows] for array in self._rows[home]], self._devices[device])
        part = _gather(self._rows[home], rows)
        return part if home == device else jax.device_put(part, self._devices[device])


def _concatenate(old: Any, new: Any) -> Any:
    return np.concatenate([old, new]) if isinstance(old, np.ndarray) else jnp.concatenate([old, new])


@jax.jit
def _gather(arrays, rows):
    return [array[rows] for array in arrays]


def _scatter_rows(arrays, new, rows):
    return [array.at[rows].set(x, mode="drop") for array, x in zip(arrays, new, strict=True)]


_scatter = jax.jit(_scatter_rows, donate_argnums=0)


@jax.jit
def _select(here, one, other):
    pick = lambda a, b: jnp.where(here.reshape(-1, *(1,) * (a.ndim - 1)), a, b)
    return [pick(a, b) for a, b in zip(one, other, strict=True)]
