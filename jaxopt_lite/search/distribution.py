"""The normal distribution that CMA-ES samples, and its update from ranked steps.

    mean m, step size σ, covariance C = B D² Bᵀ            all in units of the edges of the box, except m
    x_i = m + σ y_i,   y_i = B D z_i,   z_i ~ N(0, I)

Equation numbers and letters are those of Hansen, "The CMA Evolution Strategy: A Tutorial", 2016, arXiv:1604.00772.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_lite import tree
from jaxopt_lite.core.execution import any_lane

__all__ = ["Gaussian", "Rates", "fresh", "rates_of", "updated"]


class Rates(NamedTuple):
    """Weights and learning rates for one size of the population, Table 1; or stacked for several."""

    w: np.ndarray | jax.Array  # [length], of ranked steps: λ weights, then zeros
    mu_eff: float | np.ndarray | jax.Array
    c_c: float | np.ndarray | jax.Array
    c_1: float | np.ndarray | jax.Array
    c_mu: float | np.ndarray | jax.Array
    c_sigma: float | np.ndarray | jax.Array
    d_sigma: float | np.ndarray | jax.Array
    gap: float | np.ndarray | jax.Array  # generations between two decompositions of C


class Gaussian(NamedTuple):
    """The distribution and its evolution paths."""

    mean: jax.Array  # [n]
    sigma: jax.Array
    C: jax.Array  # [n, n]
    B: jax.Array  # [n, n], eigenvectors of C as columns, of the last decomposition
    D: jax.Array  # [n], roots of its eigenvalues
    p_sigma: jax.Array  # [n]
    p_c: jax.Array  # [n]
    generation: jax.Array  # int32

    def deviations(self) -> jax.Array:
        """The standard deviations of the coordinates in units of the edges of the box, [n]."""
        return self.sigma * jnp.sqrt(jnp.diagonal(self.C))


def rates_of(n: int, population: int, length: int | None = None) -> Rates:
    """The default parameters, Eq. (49) to (58), with negative weights and the c_μ of the revision of 2023.

    Args:
        n: the dimension.
        population: λ, at least 2.
        length: of the array of weights, λ or more; None is λ.
    """
    raw = np.log((population + 1) / 2) - np.log(np.arange(1, population + 1))  # Eq. (49)
    mu = population // 2
    mu_eff = np.sum(raw[:mu]) ** 2 / np.sum(raw[:mu] ** 2)
    rest = raw[mu:]
    mu_eff_minus = np.sum(rest) ** 2 / np.sum(rest**2)

    c_c = (4 + mu_eff / n) / (n + 4 + 2 * mu_eff / n)  # Eq. (56)
    c_1 = 2 / ((n + 1.3) ** 2 + mu_eff)  # Eq. (57)
    c_mu = min(1 - c_1, 2 * (0.25 + mu_eff + 1 / mu_eff - 2) / ((n + 2) ** 2 + mu_eff))  # Eq. (58)
    c_sigma = (mu_eff + 2) / (n + mu_eff + 5)  # Eq. (55)
    d_sigma = 1 + 2 * max(0.0, np.sqrt((mu_eff - 1) / (n + 1)) - 1) + c_sigma

    of_mean = 1 + c_1 / c_mu  # Eq. (50)
    of_mass = 1 + 2 * mu_eff_minus / (mu_eff + 2)  # Eq. (51)
    of_definiteness = (1 - c_1 - c_mu) / (n * c_mu)  # Eq. (52)
    negative = min(of_mean, of_mass, of_definiteness) / np.sum(np.maximum(-raw, 0))
    w = np.where(raw >= 0, raw / np.sum(np.maximum(raw, 0)), negative * raw)  # Eq. (53)
    w = np.concatenate([w, np.zeros((length or population) - population)])
    gap = max(1.0, np.floor(1 / (10 * n * (c_1 + c_mu))))
    return Rates(w, float(mu_eff), float(c_c), float(c_1), float(c_mu), float(c_sigma), float(d_sigma), float(gap))


def fresh(mean: jax.Array, sigma: jax.Array) -> Gaussian:
    """A distribution of round shape in units of the edges of the box, at a mean [n]."""
    n, dtype = mean.size, mean.dtype
    eye, zeros = jnp.eye(n, dtype=dtype), jnp.zeros(n, dtype)
    ones, generation = jnp.ones(n, dtype), jnp.zeros([], jnp.int32)
    return Gaussian(mean, jnp.asarray(sigma, dtype), eye, eye, ones, zeros, zeros, generation)


def updated(old: Gaussian, steps: jax.Array, width: jax.Array, rates: Rates) -> Gaussian:
    """The distribution after a generation.

    Args:
        old: the distribution that was sampled.
        steps: y [length, n], best first.
        width: the edges of the box, [n].
        rates: for this size of the population.
    """
    w, mu_eff, c_c, c_1, c_mu, c_sigma, d_sigma, gap = (jnp.asarray(r, old.mean.dtype) for r in rates)
    n = old.mean.size
    length = n**0.5 * (1 - 1 / (4 * n) + 1 / (21 * n**2))  # E‖N(0, I)‖
    whitened = (steps @ old.B) / old.D[None]  # of C^(-1/2) y, up to the rotation B

    y_w = jnp.maximum(w, 0) @ steps  # Eq. (41)
    mean = old.mean + old.sigma * width * y_w  # Eq. (42)
    white = old.B @ (jnp.maximum(w, 0) @ whitened)
    p_sigma = (1 - c_sigma) * old.p_sigma + jnp.sqrt(c_sigma * (2 - c_sigma) * mu_eff) * white  # Eq. (43)
    norm = jnp.sqrt(jnp.sum(p_sigma**2))
    sigma = old.sigma * jnp.exp(jnp.minimum(1.0, c_sigma / d_sigma * (norm / length - 1)))  # Eq. (44)

    generation = old.generation + 1
    warm = jnp.sqrt(1 - (1 - c_sigma) ** (2 * generation))
    h = (norm / warm < (1.4 + 2 / (n + 1)) * length).astype(mean.dtype)
    p_c = (1 - c_c) * old.p_c + h * jnp.sqrt(c_c * (2 - c_c) * mu_eff) * y_w  # Eq. (45)
    lengths = jnp.sum(whitened**2, axis=1)
    w_o = jnp.where(w >= 0, w, w * n / jnp.maximum(lengths, 1e-8))  # Eq. (46)
    kept = 1 + c_1 * (1 - h) * c_c * (2 - c_c) - c_1 - c_mu * jnp.sum(w)
    C = kept * old.C + c_1 * p_c[:, None] * p_c[None] + c_mu * (steps.T * w_o[None]) @ steps  # Eq. (47)
    C = (C + C.T) / 2

    is_due = generation % gap.astype(jnp.int32) == 0
    B, D = jax.lax.cond(
        any_lane(is_due),
        lambda: tree.where(is_due, _decomposed(C), (old.B, old.D)),
        lambda: (old.B, old.D),
    )
    return Gaussian(mean, sigma, C, B, D, p_sigma, p_c, generation)


def _decomposed(C: jax.Array) -> tuple[jax.Array, jax.Array]:
    """B and the diagonal of D, of C = B D² Bᵀ."""
    squares, B = jnp.linalg.eigh(C, symmetrize_input=False)
    return B, jnp.sqrt(jnp.maximum(squares, jnp.finfo(C.dtype).eps * jnp.max(squares) / 16))
