"""Samplers that learn from results, by the packages of the extra `optuna`.

    tpe       where good trials are dense and bad ones are not      Bergstra et al., 2011
    cma_es    a normal distribution that follows the good trials    Hansen & Ostermeier, 2001

They search the unit cube, in which every range has its own scale, and choices are categories. Nothing is kept between
batches: the model is rebuilt from all past trials, and its random numbers come from the seed and the number of the
batch's first trial. Failed trials count as being as bad as the worst. The first trials are Sobol points. Where a
constraint refuses what the model proposes a hundred times, a random point that it allows takes its place.
"""

import contextlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxopt_lite.core.arguments import check_int
from jaxopt_lite.core.numbers import Positive
from jaxopt_lite.sweeps.samplers import Asking, allowed, random, sampler, sobol
from jaxopt_lite.sweeps.space import Space

__all__ = ["cma_es", "tpe"]

_TRIES = 100
_MOST_IN_GENERATION = 1_000_000  # each of which has a weight
_MISSING = "{}() needs the package {!r}: pip install 'jaxopt-lite[optuna]' ({})"


@sampler
def tpe(startup: int = 16, batch: int = 16):
    """Tree-structured Parzen estimator, Optuna's: draws from the density of good trials, the best by good over bad.

    It handles sub-spaces and choices. Trials of one batch keep their distance by a "constant liar".

    Args:
        startup: number of Sobol points that go first.
        batch: trials asked for at once, on the results of all before.

    Raises:
        ImportError: when used without the extra `optuna`.

    Reference: Bergstra et al., "Algorithms for Hyper-Parameter Optimization", 2011.
    """
    check_int("tpe", "startup", startup)
    check_int("tpe", "batch", batch)

    def ask(space, seed, start, count, points, scores):
        try:
            import optuna
        except ImportError as error:
            raise ImportError(_MISSING.format("tpe", "optuna", error)) from None
        is_early = not space.dimensions or not np.isfinite(scores).any()
        early = count if is_early else min(count, max(startup - start, 0))
        head = sobol().ask(space, seed, start, early)
        if early == count:
            return head
        own_seed = int(np.random.SeedSequence([seed, start]).generate_state(1)[0])
        with warnings.catch_warnings(action="ignore"), contextlib.ExitStack() as after:
            # Optuna announces each study in its log, and warns of experimental features and of packages it could use.
            after.callback(optuna.logging.set_verbosity, optuna.logging.get_verbosity())
            optuna.logging.set_verbosity(optuna.logging.ERROR)
            model = optuna.samplers.TPESampler(seed=own_seed, n_startup_trials=0, constant_liar=True)
            study = optuna.create_study(sampler=model, direction="minimize")
            study.add_trials(_trials(optuna, space, points, _without_failures(scores).tolist()))
            study.add_trials(_trials(optuna, space, head, [None] * early))
            tail = _draw_allowed(space, seed, start + early, count - early, lambda: _suggest(space, study))
        return np.concatenate([head, tail])

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
    check_int("cma_es", "batch", batch, 4, _MOST_IN_GENERATION, none=True)

    def population(space: Space) -> int:
        return batch or 4 + int(3 * np.log(max(len(_numbers(space)), 1)))

    def ask(space, seed, start, count, points, scores):
        try:
            import cmaes
        except ImportError as error:
            raise ImportError(_MISSING.format("cma_es", "cmaes", error)) from None
        numbers, size, rng = _numbers(space), population(space), np.random.default_rng([seed, start])
        if not numbers:
            raise ValueError("cma_es: the space has no numbers outside sub-spaces; use tpe()")
        mean, bounds = np.full(len(numbers), 0.5), np.tile([0.0, 1.0], (len(numbers), 1))
        state = cmaes.CMA(mean, float(sigma), bounds=bounds, population_size=size, seed=int(rng.integers(2**31)))
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


def _trials(optuna: Any, space: Space, points: np.ndarray, scores: Any) -> list[Any]:
    """Past trials as Optuna has them; those without a score are running."""
    category, number = optuna.distributions.CategoricalDistribution, optuna.distributions.FloatDistribution(0, 1)
    states, trials = optuna.trial.TrialState, []
    for point, row, score in zip(points, space.from_unit(points), scores, strict=True):
        active = [(d, x, u) for d, x, u in zip(space.dimensions, row, point, strict=True) if not np.isnan(x)]
        params = {d.name: int(x) if d.axis.options else float(u) for d, x, u in active}
        kinds = {d.name: category(range(len(d.axis.options))) if d.axis.options else number for d, _, _ in active}
        state = states.RUNNING if score is None else states.COMPLETE
        trials.append(optuna.trial.create_trial(state=state, value=score, params=params, distributions=kinds))
    return trials


def _suggest(space: Space, study: Any) -> np.ndarray:
    """The next point that Optuna proposes. Its trial stays a running one, so that others keep their distance."""
    trial, point, chosen = study.ask(), np.full(len(space.dimensions), 0.5), {-1: -1}
    for j, dimension in enumerate(space.dimensions):
        is_active = chosen.get(dimension.parent) == dimension.option
        if is_active and dimension.axis.options:
            chosen[j] = trial.suggest_categorical(dimension.name, range(len(dimension.axis.options)))
            point[j] = dimension.axis.place(np.float64(chosen[j]))
        elif is_active:
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
