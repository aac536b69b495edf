"""Samplers: which configs of a space to try.

    grid       all combinations of evenly spaced values
    random     independent uniform points of the unit cube
    sobol      a scrambled (t, s)-sequence in base 2             Sobol', 1967; Owen, 1995
    halton     van der Corput's in the first d primes, scrambled  Halton, 1960; Owen, 2017

and, in `adaptive`, those that learn from results: tpe, cma_es.

**The protocol.** A sampler is asked for batches: `ask(space, seed, start, count, points, scores)` returns points
`start` to `start + count - 1`, float64 [count, d] in the unit cube, all of which the space's constraint allows. It is a
pure function of these: it keeps nothing between calls, and random numbers come from `seed` and `start` alone, so that a
sweep that is resumed gets the same points as one that was not interrupted. `points` [m, d] and `scores` [m] are the
past trials in their order, and lower scores are better (NaN: failed). The samplers of this module do not look at them:
their point i is a function of (space, seed, i), so that more trials extend a finished sweep without changing it.

A sampler of your own is a function `ask`, made by a factory:

    @sampler
    def corners():
        def ask(space, seed, start, count, points, scores):
            return (np.arange(start, start + count)[:, None] >> np.arange(len(space.dimensions)) & 1).astype(float)
        return ask
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, ParamSpec

import numpy as np

from jaxopt_lite.core.arguments import INT32_MAX, check_int
from jaxopt_lite.core.numbers import describe
from jaxopt_lite.core.values import Value, register, remember_calls
from jaxopt_lite.sweeps.space import Space, check_names

__all__ = ["Sampler", "grid", "halton", "random", "sampler", "sobol"]

P = ParamSpec("P")

_MOST_GRID_POINTS = 1_000_000
_POINTS = 5  # of a number, in a grid
_MOST_DRAWS = 10_000  # for one point that the constraint allows


class Asking(NamedTuple):
    """What a sampler is made of.

    Attributes:
        ask: ask(space, seed, start, count, points, scores) -> points [count, d].
        batch: batch(space) -> how many trials to ask for at once, as results are needed in between; None for all.
        total: total(space) -> how many points there are; None where there is no end of them.
    """

    ask: Callable[..., np.ndarray]
    batch: Callable[[Space], int | None] = lambda space: None
    total: Callable[[Space], int | None] = lambda space: None


@register
class Sampler(Value):
    """A rule that chooses the configs to try. Make one by calling a factory such as `sobol()`."""

    noun = "a sampler"

    @property
    def asking(self) -> Asking:
        """The functions behind it."""
        return self.built if isinstance(self.built, Asking) else Asking(self.built)

    def ask(self, space: Space, seed: int, start: int, count: int, points: Any = (), scores: Any = ()) -> np.ndarray:
        """Points `start` to `start + count - 1` of the unit cube, float64 [count, d]; see the module's docstring.

        Raises:
            ValueError: if there are not as many, or the sampler returned something else.
        """
        d = len(space.dimensions)
        past = np.asarray(points, np.float64).reshape(len(points), d)
        asked = np.asarray(self.asking.ask(space, seed, start, count, past, np.asarray(scores, np.float64)))
        if asked.shape != (count, d) or not (np.all(asked >= 0) and np.all(asked <= 1)):
            raise ValueError(f"{self!r} must return {count} points of the unit cube [0, 1]^{d}, got {describe(asked)}")
        return asked

    def propose(
        self, space: Space, seed: int, start: int, count: int, initial: Any = (), table: Any = (), scores: Any = ()
    ) -> np.ndarray:
        """The rows of trials `start` to `start + count - 1`: first those of `initial`, then what the sampler asks for.

        Batches begin where the ones before them ended; `batch(space)` is their length (of the last, what is left), or
        None for all at once. Those of `initial` are a batch of their own, or the beginning of the first.

        Args:
            space: the space.
            seed: the seed of the sweep.
            start: the number of the first trial.
            count: how many.
            initial: configs that go first; see `initial_table`.
            table: rows [m, d] of past trials, in the order of their numbers; those that still run are left out.
            scores: their scores [m], lower is better, NaN where failed.

        Returns:
            A table, float64 [count, d]; `space.configs` makes configs of it.
        """
        first = initial_table(space, initial)
        given = first[start : start + count]
        if len(given) == count:
            return given
        past = space.to_unit(np.reshape(table, (len(table), len(space.dimensions))))
        points = self.ask(space, seed, max(start - len(first), 0), count - len(given), past, scores)
        return np.concatenate([given, space.from_unit(points)])

    def batch(self, space: Space) -> int | None:
        """How many trials it wants to be asked for at once; None where it does not look at results."""
        return self.asking.batch(space)

    def total(self, space: Space) -> int | None:
        """How many points it has; None where there is no end of them."""
        return self.asking.total(space)


def sampler(function: Callable[P, Callable | Asking]) -> Callable[P, Sampler]:
    """Make a factory of samplers: the decorated function returns a function `ask` (see the module's docstring)."""
    return remember_calls(function, Sampler)


@sampler
def random():
    """Independent uniform points. Point i is a function of (seed, i): row i of NumPy's PCG64 stream.

    Reference: Bergstra & Bengio, "Random Search for Hyper-Parameter Optimization", 2012.
    """
    return streaming(lambda seed, n, d: np.random.default_rng(seed).random((n, d)))


@sampler
def sobol(scramble: bool = True):
    """Sobol's sequence: evenly spread in every pair of neighbouring dimensions; a power of 2 of trials is best.

    Args:
        scramble: shift and scramble by the seed (linear matrix scrambling); without, the seed is not used.

    References: Sobol', "On the distribution of points in a cube and the approximate evaluation of integrals", 1967;
        Owen, "Randomly permuted (t, m, s)-nets and (t, s)-sequences", 1995.
    """

    def stream(seed, n, d):
        if n > 2**30:
            raise ValueError(f"sobol: there are at most 2**30 points, and {n} are needed; use random()")
        # SciPy warns of other numbers of points than powers of 2.
        return _points("Sobol", d, scramble, seed).random_base2(max(n - 1, 0).bit_length())[:n]

    return streaming(stream)


@sampler
def halton(scramble: bool = True):
    """Halton's sequence: evenly spread for any number of trials, in up to about ten dimensions.

    Args:
        scramble: permute the digits by the seed; without, the seed is not used, and late dimensions are correlated.

    References: Halton, "On the efficiency of certain quasi-random sequences of points in evaluating multi-dimensional
        integrals", 1960; Owen, "A randomized Halton algorithm in R", 2017, arXiv:1706.02808.
    """
    return streaming(lambda seed, n, d: _points("Halton", d, scramble, seed).random(n))


@sampler
def grid(points: Any = _POINTS):
    """All combinations of evenly spaced values, of sub-spaces one after the other; the last dimension is the fastest.

    A choice takes each of its options, and so does an integer of no more than `points` values. Ends are included; of a
    normal distribution the values are quantiles in the middle of `points` equal parts.

    Args:
        points: how many values of a number, at least 1; or a dict of them by the dimension's flat name (5 for others).

    Raises:
        TypeError: if points is neither an int nor a dict of ints.
        ValueError: if one is below 1 or above a million; when used, if it names no number, or there are more than a
            million combinations.
    """
    for name, size in points.items() if isinstance(points, dict) else [("", points)]:
        check_int("grid", f"points[{name!r}]" if name else "points", size, most=_MOST_GRID_POINTS)
    all_points = functools.lru_cache(maxsize=1)(lambda space: _grid(space, points))
    ask = lambda space, seed, start, count, past, scores: all_points(space)[start : start + count].copy()
    return Asking(ask, total=lambda space: len(all_points(space)))


def _grid(space: Space, points: int | dict[str, int]) -> np.ndarray:
    sizes, usual = (points, _POINTS) if isinstance(points, dict) else ({}, points)
    check_names("grid", sizes, [d.name for d in space.dimensions if d.axis.kind != "choice"], "number ")
    units = np.full((1, len(space.dimensions)), 0.5)
    for j, dimension in enumerate(space.dimensions):
        # Each row in which the dimension is active becomes one row for each of its values.
        values = _evenly(dimension.axis, sizes.get(dimension.name, usual))
        active = space.active(space.from_unit(units))[:, j]
        copies = np.where(active, len(values), 1)
        if copies.sum() > _MOST_GRID_POINTS:
            many = f"{_MOST_GRID_POINTS:,} combinations of {len(space.dimensions)} dimensions"
            raise ValueError(f"grid: more than {many}; give fewer points, as grid({{name: number}}), or use sobol()")
        units = units.repeat(copies, axis=0)
        units[:, j] = np.concatenate([values if is_active else [0.5] for is_active in active])
    return units[allowed(space, units)]


def _evenly(axis: Any, size: int) -> np.ndarray:
    """Points of the unit interval at which a grid has a dimension's values."""
    if axis.options or (axis.integer and axis.high - axis.low < size):
        return axis.place(np.arange(axis.low, axis.high + 1.0))
    if not axis.bounded or size == 1:
        return (np.arange(size) + 0.5) / size
    values = np.linspace(0, 1, size)
    return axis.place(np.unique(axis.draw(values))) if axis.kind == "int" else values


def _points(engine: str, d: int, scramble: bool, seed: int) -> Any:
    """One of SciPy's sequences. Importing its statistics takes a third of the time that importing all else does."""
    from scipy.stats import qmc

    make = getattr(qmc, engine)
    rng = "rng" if "rng" in inspect.signature(make).parameters else "seed"  # its name before SciPy 1.15
    return make(d, scramble=scramble, **{rng: np.random.default_rng(seed)})


def streaming(stream: Callable[[int, int, int], np.ndarray]) -> Callable[..., np.ndarray]:
    """An `ask` from a sequence: its trials are the points of the sequence that the constraint allows, in order.

    Args:
        stream: stream(seed, n, d) -> the first n points of the sequence in the unit cube, [n, d].
    """

    def ask(space, seed, start, count, past, scores):
        n = end = start + count
        while True:
            points = stream(seed, n, len(space.dimensions))
            points = points[allowed(space, points)]
            if len(points) >= end:
                return points[start:end]
            if n >= _MOST_DRAWS * (len(points) + 1):
                few = f"{len(points)} of {n:,} configs drawn, of which {end} are needed"
                raise ValueError(f"the constraint where={space.where!r} allowed {few}; widen it, or draw within it")
            n *= 2

    return ask


def allowed(space: Space, points: np.ndarray) -> np.ndarray:
    """Which points of the unit cube satisfy the constraint of the space, bool [n]."""
    if space.where is None:
        return np.ones(len(points), bool)
    return np.array([space.allows(config) for config in space.configs(space.from_unit(points))], bool)


def initial_table(space: Space, initial: Sequence[dict]) -> np.ndarray:
    """The table [k, d] of the configs that go first.

    Raises:
        TypeError: if initial is not a sequence of dicts.
        ValueError: naming the config and what is wrong with it, also when the constraint does not allow it.
    """
    if isinstance(initial, (dict, str)) or not isinstance(initial, Sequence):
        raise TypeError(f"sweep: initial must be a list of configs, got {describe(initial)}")
    rows = [space.table([config], f"initial[{i}]") for i, config in enumerate(initial)]
    table = np.concatenate([np.empty((0, len(space.dimensions))), *rows])
    for i, config in enumerate(space.configs(table)):
        if not space.allows(config):
            raise ValueError(f"initial[{i}]: the constraint `where` of the space does not allow {config}")
    return table


def trial_count(sampler: Sampler, space: Space, trials: int | None, initial: Sequence[dict] = ()) -> int:
    """How many trials there are, those of `initial` included; None means all of a grid.

    Raises:
        TypeError: if trials is neither an int nor None.
        ValueError: if trials is None without a grid, below 1 or the number of `initial`, or not that of a grid.
    """
    total, first = sampler.total(space), len(initial)
    if total is None and trials is None:
        raise ValueError(f"sweep: trials must be given: {sampler!r} has no end of points")
    if total == first == 0:
        raise ValueError(f"sweep: trials must be at least 1; {sampler!r} has no points in this space")
    count = check_int("sweep", "trials", (total or 0) + first if trials is None else trials, most=INT32_MAX)
    if count < first:
        raise ValueError(f"sweep: trials={count} has no room for the {first} configs of initial")
    if total is not None and count != total + first:
        points = f"{total} points in this space" + (f" after {first} of initial" if first else "")
        raise ValueError(f"sweep: {sampler!r} has {points}, got trials={count}; leave trials out")
    return count
