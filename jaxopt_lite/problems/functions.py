"""The 24 noiseless functions of the BBOB benchmark, in the letters of its report.

Each function here makes one of them: from what an instance draws to the pair (f, optimum) and the constants of f, which
is called as f(x, optimum, *constants) with arrays of x's dtype. The optimal value is added elsewhere.

    Λ^α         the diagonal matrix of α^(i / (2 (n - 1))), i = 0, ..., n - 1       `spread(√α, n)`
    R, Q        orthogonal matrices
    T_osz       oscillates; T_asy^β breaks the symmetry; f_pen = Σ max(0, |xᵢ| - 5)²

Reference: Hansen, Finck, Ros & Auger, "Real-Parameter Black-Box Optimization Benchmarking 2009: Noiseless Functions
    Definitions", 2009, INRIA RR-6829.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_lite.problems.draws import Draws

__all__ = ["FUNCTIONS"]

SECOND = 10**6  # is added to the seed for a second matrix

Made = tuple[Callable[..., jax.Array], np.ndarray, tuple]


def spread(ratio: float, n: int) -> np.ndarray:
    """ratio^(i / (n - 1)), [n]: from 1 to ratio."""
    return ratio ** np.linspace(0, 1, n)


def t_osz(x: jax.Array) -> jax.Array:
    """T_osz, elementwise."""
    safe = jnp.log(jnp.where(x == 0, 1, jnp.abs(x)))
    waves = jnp.where(x > 0, jnp.sin(10 * safe) + jnp.sin(7.9 * safe), jnp.sin(5.5 * safe) + jnp.sin(3.1 * safe))
    return jnp.sign(x) * jnp.exp(safe + 0.049 * waves)


def t_asy(x: jax.Array, beta: float) -> jax.Array:
    """T_asy^β, of a vector [n]."""
    safe = jnp.where(x > 0, x, 1)
    exponents = jnp.asarray(beta * np.linspace(0, 1, x.size), x.dtype)
    return jnp.where(x > 0, safe ** (1 + exponents * jnp.sqrt(safe)), x)


def root(x: jax.Array) -> jax.Array:
    """√x, elementwise, with a derivative of zero at zero."""
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1)), 0)


def f_pen(x: jax.Array) -> jax.Array:
    """The penalty outside of [-5, 5]ⁿ."""
    return jnp.sum(jnp.maximum(0, jnp.abs(x) - 5) ** 2)


def rastrigin(z: jax.Array) -> jax.Array:
    """10 (n - Σ cos 2πzᵢ) + ‖z‖²."""
    return 10 * (z.size - jnp.sum(jnp.cos(2 * jnp.pi * z))) + jnp.sum(z**2)


def rosenbrock(z: jax.Array) -> jax.Array:
    """Rosenbrock's function."""
    return jnp.sum(100 * (z[:-1] ** 2 - z[1:]) ** 2 + (z[:-1] - 1) ** 2)


def sphere(draw: Draws) -> Made:
    """f1."""
    return (lambda x, x_opt: jnp.sum((x - x_opt) ** 2)), draw.point(), ()


def separable_ellipsoid(draw: Draws) -> Made:
    """f2."""
    return (lambda x, x_opt, s: jnp.sum(s * t_osz(x - x_opt) ** 2)), draw.point(), (spread(1e6, draw.n),)


def separable_rastrigin(draw: Draws) -> Made:
    """f3."""
    return (
        (lambda x, x_opt, s: rastrigin(s * t_asy(t_osz(x - x_opt), 0.2))),
        *(draw.point(), (spread(10**0.5, draw.n),)),
    )


def bueche_rastrigin(draw: Draws) -> Made:
    """f4: every other coordinate, from the first on, is 10 times steeper where it is positive."""
    is_skew, x_opt = np.arange(draw.n) % 2 == 0, draw.point()

    def f(x, x_opt, s):
        z = t_osz(x - x_opt)
        return rastrigin(jnp.where(jnp.asarray(is_skew) & (z > 0), 10 * s * z, s * z)) + 100 * f_pen(x)

    return f, np.where(is_skew, np.abs(x_opt), x_opt), (spread(10**0.5, draw.n),)


def linear_slope(draw: Draws) -> Made:
    """f5: the optimum is a corner of the box; beyond it the slope is level."""

    def f(x, x_opt, s):
        z = jnp.where(x_opt * x < 25, x, x_opt)
        return jnp.sum(5 * s - jnp.sign(x_opt) * s * z)

    return f, 5 * np.sign(draw.point()), (spread(10, draw.n),)


def attractive_sector(draw: Draws) -> Made:
    """f6."""

    def f(x, x_opt, s, r, q):
        z = q @ (s * (r @ (x - x_opt)))
        return t_osz(jnp.sum(jnp.where(z * x_opt > 0, 100 * z, z) ** 2)) ** 0.9

    return f, draw.point(), (spread(10**0.5, draw.n), draw.rotation(), draw.rotation(SECOND))


def step_ellipsoid(draw: Draws) -> Made:
    """f7."""

    def f(x, x_opt, s, scales, r, q):
        hat = s * (r @ (x - x_opt))
        z = q @ jnp.where(jnp.abs(hat) > 0.5, jnp.round(hat), jnp.round(10 * hat) / 10)
        return 0.1 * jnp.maximum(jnp.abs(hat[0]) / 1e4, jnp.sum(scales * z**2)) + f_pen(x)

    return (
        *(f, draw.point()),
        (spread(10**0.5, draw.n), spread(100, draw.n), draw.rotation(), draw.rotation(SECOND)),
    )


def stretch(n: int) -> float:
    """max(1, √n / 8)."""
    return max(1.0, n**0.5 / 8)


def original_rosenbrock(draw: Draws) -> Made:
    """f8."""
    return (lambda x, x_opt: rosenbrock(stretch(x.size) * (x - x_opt) + 1)), 0.75 * draw.point(), ()


def rotated_rosenbrock(draw: Draws) -> Made:
    """f9."""
    r, c = draw.rotation(), stretch(draw.n)
    return (lambda x, _, r: rosenbrock(c * (r @ x) + 0.5)), r.T @ np.full(draw.n, 0.5 / c), (r,)


def ellipsoid(draw: Draws) -> Made:
    """f10."""
    return (
        (lambda x, x_opt, s, r: jnp.sum(s * t_osz(r @ (x - x_opt)) ** 2)),
        *(draw.point(), (spread(1e6, draw.n), draw.rotation(SECOND))),
    )


def discus(draw: Draws) -> Made:
    """f11."""

    def f(x, x_opt, r):
        z = t_osz(r @ (x - x_opt))
        return 1e6 * z[0] ** 2 + jnp.sum(z[1:] ** 2)

    return f, draw.point(), (draw.rotation(SECOND),)


def bent_cigar(draw: Draws) -> Made:
    """f12."""

    def f(x, x_opt, r):
        z = r @ t_asy(r @ (x - x_opt), 0.5)
        return z[0] ** 2 + 1e6 * jnp.sum(z[1:] ** 2)

    return f, draw.point(SECOND), (draw.rotation(SECOND),)


def sharp_ridge(draw: Draws) -> Made:
    """f13."""

    def f(x, x_opt, s, r, q):
        z = q @ (s * (r @ (x - x_opt)))
        return z[0] ** 2 + 100 * root(jnp.sum(z[1:] ** 2))

    return f, draw.point(), (spread(10**0.5, draw.n), draw.rotation(), draw.rotation(SECOND))


def different_powers(draw: Draws) -> Made:
    """f14."""
    return (
        (lambda x, x_opt, powers, r: root(jnp.sum(jnp.abs(r @ (x - x_opt)) ** powers))),
        *(draw.point(), (2 + 4 * np.linspace(0, 1, draw.n), draw.rotation(SECOND))),
    )


def rotated_rastrigin(draw: Draws) -> Made:
    """f15."""

    def f(x, x_opt, s, r, q):
        return rastrigin(r @ (s * (q @ t_asy(t_osz(r @ (x - x_opt)), 0.2))))

    return f, draw.point(), (spread(10**0.5, draw.n), draw.rotation(SECOND), draw.rotation())


def weierstrass(draw: Draws) -> Made:
    """f16."""
    k = np.arange(12)
    f_0 = np.sum(np.cos(np.pi * 3.0**k) / 2.0**k)

    def f(x, x_opt, s, r, q, a, b):
        z = r @ (s * (q @ t_osz(r @ (x - x_opt))))
        terms = a[None] * jnp.cos(2 * jnp.pi * b[None] * (z[:, None] + 0.5))
        return 10 * (jnp.sum(terms) / x.size - f_0) ** 3 + 10 / x.size * f_pen(x)

    constants = (spread(0.1, draw.n), draw.rotation(SECOND), draw.rotation(), 0.5**k, 3.0**k)
    return f, draw.point(), constants


def schaffers(condition: float) -> Callable[[Draws], Made]:
    """f17 and f18."""

    def make(draw: Draws) -> Made:
        def f(x, x_opt, s, r, q):
            z = s * (q @ t_asy(r @ (x - x_opt), 0.5))
            squares = z[:-1] ** 2 + z[1:] ** 2
            safe = jnp.where(squares > 0, squares, 1)
            terms = jnp.where(squares > 0, safe**0.25 * (jnp.sin(50 * safe**0.1) ** 2 + 1), 0)
            return jnp.mean(terms) ** 2 + 10 * f_pen(x)

        return f, draw.point(), (spread(condition**0.5, draw.n), draw.rotation(SECOND), draw.rotation())

    return make


def griewank_rosenbrock(draw: Draws) -> Made:
    """f19."""
    r, c = draw.rotation(), stretch(draw.n)

    def f(x, _, r):
        z = c * (r @ x) + 0.5
        s = 100 * (z[:-1] ** 2 - z[1:]) ** 2 + (z[:-1] - 1) ** 2
        return 10 * jnp.mean(s / 4000 - jnp.cos(s)) + 10

    return f, r.T @ np.full(draw.n, 0.5 / c), (r,)


def schwefel(draw: Draws) -> Made:
    """f20."""
    signs = np.sign(draw.uniform(draw.n) - 0.5)

    def f(x, x_opt, s):
        center = 2 * jnp.abs(x_opt)
        hat = 2 * jnp.sign(x_opt) * x
        hat = hat.at[1:].add(0.25 * (hat[:-1] - center[:-1]))
        z = 100 * (s * (hat - center) + center)
        waves = jnp.mean(z * jnp.sin(root(jnp.abs(z))))
        return -waves / 100 + 4.189828872724339 + 100 * f_pen(z / 100)

    return f, 4.2096874633 / 2 * signs, (spread(10**0.5, draw.n),)


def gallagher(peaks: int, condition: float, edge: float) -> Callable[[Draws], Made]:
    """f21 and f22: the largest of some Gaussian peaks; `condition` is of the highest, the others' are up to 1000."""

    def make(draw: Draws) -> Made:
        n = draw.n
        others = spread(1000, peaks - 1)[np.argsort(draw.uniform(peaks - 1))]
        orders = [np.argsort(draw.uniform(n, 1000 * i)) for i in range(peaks)]
        conditions = (condition, *others)
        c = np.array([(a ** np.linspace(-0.5, 0.5, n))[order] for a, order in zip(conditions, orders, strict=True)])
        heights = np.array([10, *np.linspace(1.1, 9.1, peaks - 1)])
        centers = edge * (10 * draw.uniform(n * peaks).reshape(peaks, n) - 5)
        centers[0] *= 0.8  # the global optimum is not too close to the bounds
        r = draw.rotation()

        def f(x, _, r, rotated, c, heights):
            exponents = jnp.sum(c * ((r @ x)[None] - rotated) ** 2, axis=1) / (2 * n)
            return t_osz(10 - jnp.max(heights * jnp.exp(-exponents))) ** 2 + f_pen(x)

        return f, centers[0], (r, centers @ r.T, c, heights)

    return make


def katsuura(draw: Draws) -> Made:
    """f23."""
    n, powers = draw.n, 2.0 ** np.arange(1, 33)

    def f(x, x_opt, s, r, q, powers):
        z = q @ (s * (r @ (x - x_opt)))
        scaled = powers[None] * z[:, None]
        sums = jnp.sum(jnp.abs(scaled - jnp.round(scaled)) / powers[None], axis=1)
        factors = 1 + jnp.arange(1, n + 1) * sums
        return 10 / n**2 * (jnp.prod(factors) ** (10 / n**1.2) - 1) + f_pen(x)

    return f, draw.point(), (spread(10, n), draw.rotation(), draw.rotation(SECOND), powers)


def lunacek(draw: Draws) -> Made:
    """f24: two funnels, of which the narrow one holds the optimum."""
    n, mu_0, d = draw.n, 2.5, 1
    s = 1 - 1 / (2 * (n + 20) ** 0.5 - 8.2)
    mu_1 = -(((mu_0**2 - d) / s) ** 0.5)

    def f(x, x_opt, scales, r, q):
        hat = 2 * jnp.sign(x_opt) * x
        z = q @ (scales * (r @ (hat - mu_0)))
        funnels = jnp.minimum(jnp.sum((hat - mu_0) ** 2), d * n + s * jnp.sum((hat - mu_1) ** 2))
        return funnels + 10 * (n - jnp.sum(jnp.cos(2 * jnp.pi * z))) + 1e4 * f_pen(x)

    return f, mu_0 / 2 * np.sign(draw.normal(n)), (spread(10, n), draw.rotation(), draw.rotation(SECOND))


FUNCTIONS: tuple[tuple[str, Any, int], ...] = (  # name, maker, and the number that seeds its instances
    ("sphere", sphere, 1),
    ("separable ellipsoid", separable_ellipsoid, 2),
    ("separable Rastrigin", separable_rastrigin, 3),
    ("Büche-Rastrigin", bueche_rastrigin, 3),
    ("linear slope", linear_slope, 5),
    ("attractive sector", attractive_sector, 6),
    ("step ellipsoid", step_ellipsoid, 7),
    ("Rosenbrock", original_rosenbrock, 8),
    ("rotated Rosenbrock", rotated_rosenbrock, 9),
    ("ellipsoid", ellipsoid, 10),
    ("discus", discus, 11),
    ("bent cigar", bent_cigar, 12),
    ("sharp ridge", sharp_ridge, 13),
    ("different powers", different_powers, 14),
    ("Rastrigin", rotated_rastrigin, 15),
    ("Weierstrass", weierstrass, 16),
    ("Schaffers F7", schaffers(10), 17),
    ("Schaffers F7, ill-conditioned", schaffers(1000), 17),
    ("Griewank-Rosenbrock F8F2", griewank_rosenbrock, 19),
    ("Schwefel", schwefel, 20),
    ("Gallagher, 101 peaks", gallagher(101, 1000**0.5, 1.0), 21),
    ("Gallagher, 21 peaks", gallagher(21, 1000, 0.98), 22),
    ("Katsuura", katsuura, 23),
    ("Lunacek bi-Rastrigin", lunacek, 24),
)
