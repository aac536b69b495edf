"""A user's function, traced: a static value that is equal for equal texts, and what the function captured.

A solve is compiled once for each text. The function is traced once for each function object; one made anew at each call
is traced at each call, and shares the compiled program with those of the same text. What it captured, tracers of
surrounding transformations too, becomes an argument, so that derivatives flow to it and data stay out of the program.
"""

import dataclasses
import hashlib
import re
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxopt_lite.core.programs import text_digest

__all__ = []

_TINY = 16  # elements of an array: up to here a solve takes about as long without optimized kernels


@dataclasses.dataclass(frozen=True)
class Function:
    """A traced function of some pytrees, called with what it captured first. Equal ones compute the same.

    `is_tiny` tells whether it has no loops, and no array of more than 16 elements.
    """

    digest: tuple[bytes, ...]
    avals: tuple  # of its arguments; weak types are told apart
    structures: tuple  # of its arguments and its result
    jaxpr: Any = dataclasses.field(compare=False)
    is_tiny: bool = dataclasses.field(compare=False)
    only_itself: int = 0  # the id of the jaxpr, where its text does not show all that it computes

    def __call__(self, captured: Any, *arguments: Any) -> Any:
        leaves = jax.tree.leaves(arguments)
        return jax.tree.unflatten(self.structures[1], jax.core.eval_jaxpr(self.jaxpr, captured, *leaves))


_known: weakref.WeakKeyDictionary[Callable, dict] = weakref.WeakKeyDictionary()


def traced(function: Callable, *arguments: Any) -> tuple[Function, list]:
    """The traced function and the arrays that it captured.

    Args:
        function: of pytrees of arrays.
        arguments: the pytrees, or their shapes.
    """
    shapes = jax.tree.map(_shape, arguments)
    leaves, structure = jax.tree.flatten(shapes)
    key = (structure, tuple((x.shape, x.dtype, x.weak_type) for x in leaves), jax.config.jax_enable_x64)  # type: ignore
    try:
        kept = _known.setdefault(function, {})
    except TypeError:  # it cannot be hashed, or not be referred to weakly
        kept = {}
    if key not in kept:
        found = _trace(function, structure, leaves, shapes)
        if any(isinstance(x, Tracer) for x in found[1]):
            return found  # they belong to this trace only
        kept[key] = found
    return kept[key]


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    aval = jax.typeof(leaf) if not isinstance(leaf, jax.ShapeDtypeStruct) else leaf
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=bool(getattr(aval, "weak_type", False)))


def _trace(function: Callable, structure: Any, leaves: list, shapes: tuple) -> tuple[Function, list]:
    closed, out = jax.make_jaxpr(function, return_shape=True)(*shapes)
    jaxpr, captured = closed.jaxpr, list(closed.consts)
    avals = tuple(str(v.aval) + str(getattr(v.aval, "weak_type", "")) for v in (*jaxpr.constvars, *jaxpr.invars))
    digest, is_whole = _digest(jaxpr)
    digests = [digest]
    if not is_whole:  # of custom derivatives it shows the names: what they compute is in the text of the derivative
        digest, is_whole = _derivative(function, shapes)
        digests.append(digest)
    structures, only_itself = (structure, jax.tree.structure(out)), 0 if is_whole else id(jaxpr)
    made = Function(tuple(digests), avals, structures, jaxpr, _is_tiny(jaxpr), only_itself)
    # Copies of NumPy's arrays, which their owner may change.
    return made, [np.array(x) if isinstance(x, np.ndarray) else x for x in captured]


def _is_tiny(jaxpr: Any) -> bool:
    """Whether a text, those inside it included, has no loops and small arrays only."""
    variables = (*jaxpr.constvars, *jaxpr.invars, *(v for equation in jaxpr.eqns for v in equation.outvars))
    parts = (getattr(part, "jaxpr", part) for equation in jaxpr.eqns for part in jax.tree.leaves(equation.params))
    return (
        all(getattr(v.aval, "size", 1) <= _TINY for v in variables)
        and not any(equation.primitive.name in ("while", "scan") for equation in jaxpr.eqns)
        and all(_is_tiny(part) for part in parts if hasattr(part, "eqns"))
    )


def _digest(jaxpr: Any) -> tuple[bytes, bool]:
    """The digest of a text, and whether it shows all that is computed, first derivatives too."""
    digest, is_whole = text_digest(jaxpr)
    return digest, is_whole and re.search(r"\bcustom_[jv][vj]p_call", str(jaxpr)) is None


def _derivative(function: Callable, shapes: tuple) -> tuple[bytes, bool]:
    """The digest of the reverse derivative of a function, and whether its text shows all that it computes."""

    def pulled(*arguments):
        leaves, structure = jax.tree.flatten(arguments)
        is_float = [jnp.issubdtype(x.dtype, jnp.inexact) for x in leaves]

        def inexact(*floats):
            rest = iter(floats)
            whole = [next(rest) if f else x for f, x in zip(is_float, leaves, strict=True)]
            results = jax.tree.leaves(function(*jax.tree.unflatten(structure, whole)))
            return [r for r in results if jnp.issubdtype(jnp.result_type(r), jnp.inexact)]

        results, pull = jax.vjp(inexact, *[x for f, x in zip(is_float, leaves, strict=True) if f])
        return results, pull([jnp.ones_like(r) for r in results])

    try:
        return text_digest(jax.make_jaxpr(pulled)(*shapes).jaxpr)
    except Exception:  # it has no such derivative, which is for the solve to say
        return hashlib.sha256().digest(), False
