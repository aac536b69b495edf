"""Test problems of global search: the noiseless functions of the BBOB benchmark, by number, dimension and instance."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_lite.core.arguments import check_int
from jaxopt_lite.problems.draws import Draws
from jaxopt_lite.problems.functions import FUNCTIONS

__all__ = ["TestProblem", "bbob"]


@dataclasses.dataclass(frozen=True, eq=False)
class TestProblem:
    """A function to be minimized in a box, whose minimum is known.

    Attributes:
        f: a vector [n] of floats -> a scalar of its dtype. It may be used under jit, vmap and grad.
        optimum: the point of the least value, [n], float64.
        value: the least value.
        lower: the lower bound of every parameter.
        upper: the upper bound of every parameter.
        name: of the function.
    """

    __test__ = False  # it is no test of pytest's

    f: Callable[[Any], jax.Array]
    optimum: np.ndarray
    value: float
    lower: float
    upper: float
    name: str

    @property
    def bounds(self) -> tuple[float, float]:
        """(lower, upper), as `jo.minimize(..., bounds=)` takes them."""
        return self.lower, self.upper

    def __repr__(self) -> str:
        return f"TestProblem({self.name}, {self.optimum.size} dimensions, least value {self.value:g})"


def bbob(function: int, dimension: int, instance: int = 1) -> TestProblem:
    """One of the 24 noiseless functions of the benchmark BBOB, in the box [-5, 5]ⁿ.

    1 to 5 are separable, 6 to 9 of low or moderate conditioning, 10 to 14 ill-conditioned with one optimum, 15 to 19
    have many optima with a global structure, 20 to 24 with a weak one. An instance is moved, rotated and given a least
    value of its own, by the benchmark's random numbers. f computes in the dtype of its argument; the benchmark is one
    of float64.

    Args:
        function: its number, 1 to 24.
        dimension: n, at least 2.
        instance: its number, at least 1; the benchmark uses 1 to 15 and some larger ones.

    Raises:
        WrongTypeError: if one of them is not an int.
        ValueError: if one of them is out of its range.

    Reference: Hansen, Finck, Ros & Auger, "Real-Parameter Black-Box Optimization Benchmarking 2009: Noiseless Functions
        Definitions", 2009, INRIA RR-6829.
    """
    function = check_int("bbob", "function", function, most=len(FUNCTIONS))
    dimension = check_int("bbob", "dimension", dimension, least=2)
    return _made(function, dimension, check_int("bbob", "instance", instance))


@functools.cache
def _made(function: int, dimension: int, instance: int) -> TestProblem:
    name, make, number = FUNCTIONS[function - 1]
    draw = Draws(dimension, number + 10_000 * instance)
    core, optimum, constants = make(draw)
    value = draw.value()
    arrays = (optimum, *constants, np.array([value]))

    def f(x: Any) -> jax.Array:
        x = jnp.asarray(x)
        if x.shape != (dimension,) or not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f"bbob: f takes a vector of {dimension} floats, got shape {x.shape} and dtype {x.dtype}")
        *given, least = (jnp.asarray(a, x.dtype) for a in arrays)
        return core(x, *given) + least[0]

    optimum.setflags(write=False)
    return TestProblem(f, optimum, value, -5.0, 5.0, f"f{function} {name}, instance {instance}")
