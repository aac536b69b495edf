"""Samplers that learn from results, by the packages of the extra `optuna`.

    tpe       where good trials are dense and bad ones are not      Bergstra et al., 2011
    gp        largest expected improvement of a Gaussian process    Jones et al., 1998
    cma_es    a normal distribution that follows the good trials    Hansen & Ostermeier, 2001

They search the unit cube, in which every range has its own scale, and choices are categories. Nothing is kept between
batches: the model is rebuilt from all past trials, and its random numbers come from the seed and the number of the
batch's first trial. Failed trials count as being as bad as the worst. The first trials are Sobol points. Where a
constraint refuses what the model proposes a hundred times, a random point that it allows takes its place.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jaxopt_lite.core.numbers import Positive
from jaxopt_lite.sweeps.samplers import Asking, allowed, random, sampler, sobol
from jaxopt_lite.sweeps.space import Space

__all__ = ["cma_es", "gp", "tpe"]

_TRIES = 100
_MOST_IN_GENERATION = 1_000_000  # each of which has a weight


@sampler
def tpe(startup: int = 16, batch: int = 16):
    """Tree-structured Parzen estimator, Optuna's: draws from the density of good trials, the best by good over bad.

    Sub-spaces and choices are at home here. Trials of one batch keep their distance by a "constant liar".

    Args:
        startup: number of Sobol points that go first.
        batch: trials asked for at once, on the results of all before.

    Raises:
        ImportError: when used without the extra `optuna`.

    Reference: Bergstra et al., "Algorithms for Hyper-Parameter Optimization", 2011.
    """
    _check_positive("tpe", startup=startup, batch=batch)
    make = lambda optuna, seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=0, constant_liar=True)
    return Asking(_by_optuna("tpe", make, startup), lambda space: batch)


@sampler
def gp(startup: int = 16, batch: int = 8):
    """Gaussian process with expected improvement, Optuna's: the most careful, for few and dear trials.

    A trial takes about a second, and more as trials grow: for some hundreds. Dimensions of sub-spaces are drawn at
    random. It needs PyTorch.

    Args:
        startup: number of Sobol points that go first.
        batch: trials asked for at once, on the results of all before.

    Raises:
        ImportError: when used without the extra `optuna`, or without `torch`.

    Reference: Jones, Schonlau & Welch, "Efficient Global Optimization of Expensive Black-Box Functions", 1998.
    """
    _check_positive("gp", startup=startup, batch=batch)

    make = lambda optuna, seed: optuna.samplers.GPSampler(
        seed=seed, n_startup_trials=0, warn_independent_sampling=False
    )

    def ask(*args):
        torch = _require("gp", "torch", "pip install torch")
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # its matrices are small: more threads are slower, and may change the last bits
        try:
            return _by_optuna("gp", make, startup)(*args)
        finally:
            torch.set_num_threads(threads)

    return Asking(ask, lambda space: batch)


@sampler
def cma_es(batch: int | None = None, sigma: Positive = 0.3):
    """Covariance matrix adaptation, by the package `cmaes` that Optuna's sampler is made of; for many trials.

    The generations are replayed from the past trials, `batch` by `batch` in their order. Choices and the dimensions of
    sub-spaces are drawn at random.

    Args:
        batch: trials of one generation; None is 4 + ⌊3 ln d⌋ for d numbers. Above 4 d it gains little a trial.
        sigma: standard deviation to begin with, in units of the ranges. The mean begins in their middle.

    Raises:
        ImportError: when used without the extra `optuna`.
        ValueError: when used in a space without numbers outside sub-spaces.

    Reference: Hansen & Ostermeier, "Completely Derandomized Self-Adaptation in Evolution Strategies", 2001; Hansen,
        "The CMA Evolution Strategy: A Tutorial", 2016, arXiv:1604.00772.
    """
    if batch is not None:
        _check_positive("cma_es", batch=batch)
        if not 4 <= batch <= _MOST_IN_GENERATION:
            raise ValueError(f"cma_es: batch must be at least 4 and at most {_MOST_IN_GENERATION:,}, got {batch}")

    def population(space: Space) -> int:
        return batch or 4 + int(3 * np.log(max(len(_numbers(space)), 1)))

    def ask(space, seed, start, count, points, scores):
        cmaes = _require("cma_es", "cmaes")
        numbers, size, rng = _numbers(space), population(space), np.random.default_rng([seed, start])
        if not numbers:
            raise ValueError("cma_es: the space has no numbers outside sub-spaces; use tpe()")
        bounds = np.tile([0.0, 1.0], (len(numbers), 1))
        state = cmaes.CMA(
            np.full(len(numbers), 0.5), sigma, bounds=bounds, population_size=size, seed=int(rng.integers(2**31))
        )
        scores = _without_failures(scores)
        for i in range(0, len(points) - size + 1, size):
            state.tell([(points[k, numbers], scores[k]) for k in range(i, i + size)])

        def draw() -> np.ndarray:
            point = rng.random(len(space.dimensions))
            point[numbers] = state.ask()
            return point

        return _draw_allowed(space, seed, start, count, draw)

    return Asking(ask, population)


def _numbers(space: Space) -> list[int]:
    """The dimensions that are numbers and always active."""
    return [j for j, d in enumerate(space.dimensions) if d.axis.kind != "choice" and d.parent < 0]


def _by_optuna(who: str, make: Callable[[Any, int], Any], startup: int) -> Callable[..., np.ndarray]:
    def ask(space, seed, start, count, points, scores):
        optuna = _require(who, "optuna")
        early = count if not np.isfinite(scores).any() else min(count, max(startup - start, 0))
        head = sobol().ask(space, seed, start, early)
        if early == count or not space.dimensions:
            return head
        own_seed = int(np.random.SeedSequence([seed, start]).generate_state(1)[0])
        with _quietly(optuna):
            study = optuna.create_study(sampler=make(optuna, own_seed), direction="minimize")
            study.add_trials(_trials(optuna, space, points, _without_failures(scores)))
            study.add_trials(_trials(optuna, space, head, [None] * early))
            tail = _draw_allowed(space, seed, start + early, count - early, lambda: _suggest(space, study))
        return np.concatenate([head, tail])

    return ask


def _trials(optuna: Any, space: Space, points: np.ndarray, scores: Any) -> list[Any]:
    """Past trials as Optuna has them; those without a score are running."""
    distributions = {
        d.name: optuna.distributions.CategoricalDistribution(range(len(d.axis.options)))
        if d.axis.kind == "choice"
        else optuna.distributions.FloatDistribution(0.0, 1.0)
        for d in space.dimensions
    }
    trials, table = [], space.from_unit(points)
    for point, row, score in zip(points, table, scores, strict=True):
        params = {
            d.name: int(index) if d.axis.kind == "choice" else float(unit)
            for d, unit, index in zip(space.dimensions, point, row, strict=True)
            if not np.isnan(index)
        }
        states = optuna.trial.TrialState
        trials.append(
            optuna.trial.create_trial(
                state=states.RUNNING if score is None else states.COMPLETE,
                value=None if score is None else float(score),
                params=params,
                distributions={name: distributions[name] for name in params},
            )
        )
    return trials


def _suggest(space: Space, study: Any) -> np.ndarray:
    """The next point that Optuna proposes. Its trial goes on running, so that others keep their distance."""
    trial, point, chosen = study.ask(), np.full(len(space.dimensions), 0.5), {}
    for j, dimension in enumerate(space.dimensions):
        if dimension.parent >= 0 and chosen.get(dimension.parent) != dimension.option:
            continue
        if dimension.axis.kind == "choice":
            chosen[j] = trial.suggest_categorical(dimension.name, range(len(dimension.axis.options)))
            point[j] = dimension.axis.place(np.float64(chosen[j]))
        else:
            point[j] = trial.suggest_float(dimension.name, 0.0, 1.0)
    return point


def _draw_allowed(space: Space, seed: int, start: int, count: int, draw: Callable[[], np.ndarray]) -> np.ndarray:
    points = np.empty((count, len(space.dimensions)))
    for i in range(count):
        tries = (draw() for _ in range(_TRIES))
        found = next((point for point in tries if allowed(space, point[None])[0]), None)
        points[i] = random().ask(space, seed, start + i, 1)[0] if found is None else found
    return points


def _without_failures(scores: np.ndarray) -> np.ndarray:
    """Scores with the worst in place of what is not finite."""
    finite = np.isfinite(scores)
    return np.where(finite, scores, scores[finite].max() if finite.any() else 0.0)


@contextlib.contextmanager
def _quietly(optuna: Any) -> Iterator[None]:
    """Optuna announces each study in its log, and warns of experimental features and of packages it could use."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def _require(who: str, package: str, remedy: str = "pip install 'jaxopt-lite[optuna]'") -> Any:
    """Import a package of the extra when a sampler is used."""
    try:
        if package == "optuna":
            import optuna as module
        elif package == "cmaes":
            import cmaes as module
        else:
            import torch as module  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(f"{who}() needs the package {package!r}: {remedy} ({error})") from None
    return module


def _check_positive(who: str, **numbers: Any) -> None:
    for name, value in numbers.items():
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{who}: {name} must be an int, got {value!r}")
        if value < 1:
            raise ValueError(f"{who}: {name} must be at least 1, got {value}")
