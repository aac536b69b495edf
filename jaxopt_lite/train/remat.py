"""A loss that recomputes in its backward pass what its forward pass would have kept.

The gradient of a loss needs the results of all its operations. Here the loss, as the list of operations that JAX
traces, is cut into parts. The results that pass a cut are kept, those within a part are computed again in the backward
pass. So the memory is that of the cuts and of the largest part, and the price is one more forward pass.

    a scan        its body is a part: the carry is kept, once for each iteration
    all else      is cut where few bytes pass, such as between two layers

Chen, Xu, Zhang & Guestrin, "Training Deep Nets with Sublinear Memory Cost", 2016, arXiv:1604.06174, Algorithm 3.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.core
import numpy as np
from jax.extend.core import Literal

from jaxopt_lite import tree

__all__ = []

# Those of `jax.checkpoint_policies` that take no arguments and save something.
POLICIES = ("nothing_saveable", "dots_saveable", "dots_with_no_batch_dims_saveable")
_SIZES = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)  # parts of equal size that are tried


def policy_of(remat: Any, who: str) -> str | None:
    """The policy that an argument `remat` asks for, None for False.

    Raises:
        ValueError: if it is neither a bool nor one of `POLICIES`.
    """
    if isinstance(remat, bool):
        return "nothing_saveable" if remat else None
    if remat not in POLICIES:
        raise ValueError(f"{who}: remat must be True, False, or one of {', '.join(POLICIES)}, got {remat!r:.80}")
    return remat


def recomputing(f: Callable, policy: str) -> Callable:
    """A function of pytrees that computes what f computes, and whose gradient needs less memory.

    Args:
        f: a function of pytrees of arrays that returns one.
        policy: what a part keeps of its own results, one of `POLICIES`.
    """
    keep = getattr(jax.checkpoint_policies, policy)

    def g(*args):
        leaves, structure = jax.tree.flatten(args)
        traced, shape = jax.make_jaxpr(lambda *leaves: f(*structure.unflatten(leaves)), return_shape=True)(*leaves)
        given, jaxpr = [*traced.consts, *leaves], traced.jaxpr
        if any(map(_is_jitted, jaxpr.eqns)):
            flat = jax.make_jaxpr(lambda *given: _taken_apart(traced.jaxpr, given))(*given)
            given, jaxpr = [*flat.consts, *given], flat.jaxpr
        results = _in_parts(jaxpr, given, keep)
        return jax.tree.unflatten(jax.tree.structure(shape), results)

    return g


def _taken_apart(jaxpr: Any, given: Iterable) -> list:
    """The results of a jaxpr for its constants and arguments; jitted functions are taken apart, so they can be cut."""
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], given, strict=True))
    for eqn in jaxpr.eqns:
        if _is_jitted(eqn):
            inner = eqn.params["jaxpr"]
            found = _taken_apart(inner.jaxpr, [*inner.consts, *_read(values, eqn.invars)])
        else:
            inputs = list(dict.fromkeys(_variables(eqn.invars)))
            found = _function(jaxpr, [eqn], inputs, eqn.outvars)(*_read(values, inputs))
        values.update(zip(eqn.outvars, found, strict=True))
    return _read(values, jaxpr.outvars)


def _function(jaxpr: Any, eqns: list, inputs: Iterable, outputs: Iterable) -> Callable:
    """Some operations of a jaxpr as a function of the values of variables."""
    effects = frozenset().union(*(eqn.effects for eqn in eqns))
    part = jaxpr.replace(constvars=[], invars=list(inputs), outvars=list(outputs), eqns=eqns, effects=effects)
    return functools.partial(jax.core.eval_jaxpr, part, ())


def _in_parts(jaxpr: Any, given: list, policy: Callable) -> list:
    """The results of a jaxpr, part by part."""
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], given, strict=True))
    for begin, end in _parts(jaxpr):
        part = jaxpr.eqns[begin:end]
        later = {*_variables(jaxpr.outvars), *_variables(v for eqn in jaxpr.eqns[end:] for v in eqn.invars)}
        made = [v for eqn in part for v in eqn.outvars]
        inputs = dict.fromkeys(v for v in _variables(v for eqn in part for v in eqn.invars) if v not in set(made))
        if _is_scan(part[0]):
            values |= _scan(part[0], values, policy)
            continue
        outputs = [v for v in made if v in later]
        run = jax.checkpoint(_function(jaxpr, part, inputs, outputs), policy=policy)
        values.update(zip(outputs, run(*_read(values, inputs)), strict=True))
    return _read(values, jaxpr.outvars)


def _scan(eqn: Any, values: dict, policy: Callable) -> dict:
    """The results of a scan whose body is recomputed, by variable."""
    p, given = eqn.params, _read(values, eqn.invars)
    if "num_consts" in p:
        first, carried = p["num_consts"], p["num_carry"]
    else:  # JAX 0.12 tells them by trees: of the constants, the carry and the rest
        first, carried = (len(part) for part in p["ft_in"].unpack()[:2])
    inner = p["jaxpr"]

    @functools.partial(jax.checkpoint, policy=policy, prevent_cse=False)  # a loop keeps the two passes apart by itself
    def body(carry, x):
        results = jax.core.eval_jaxpr(getattr(inner, "jaxpr", inner), inner.consts, *given[:first], *carry, *x)
        return results[:carried], results[carried:]

    settings = {name: p[name] for name in ("length", "reverse", "unroll")}
    carry, outputs = jax.lax.scan(body, given[first : first + carried], given[first + carried :], **settings)
    return dict(zip(eqn.outvars, [*carry, *outputs], strict=True))


def _parts(jaxpr: Any) -> Iterator[tuple[int, int]]:
    """Begin and end of each part: scans by themselves, and what is between them cut."""
    passing, made = _bytes(jaxpr)
    begin = 0
    scans = [i for i, eqn in enumerate(jaxpr.eqns) if _is_scan(eqn)]
    for i in [*scans, len(jaxpr.eqns)]:
        cuts = _cuts(passing[begin : i + 1], made[begin:i])
        yield from ((begin + a, begin + b) for a, b in itertools.pairwise(cuts))
        if i < len(jaxpr.eqns):
            yield i, i + 1
        begin = i + 1


def _cuts(passing: np.ndarray, made: np.ndarray) -> list[int]:
    """Where to cut operations, their begin and end included: the best of those for several sizes of a part.

    Args:
        passing: bytes that are made before and used after each of the n + 1 places between n operations.
        made: bytes that each operation makes.
    """
    n, total = len(made), np.concatenate([[0], np.cumsum(made)])
    if n == 0:
        return [0]
    best, least = [0, n], total[-1]
    for parts in _SIZES:
        cuts = [0]
        while total[-1] - total[cuts[-1]] > total[-1] / parts:
            begin = cuts[-1]
            # At the place where the fewest bytes pass, of those where the part has half the size to the whole of it.
            low, high = np.searchsorted(total, total[begin] + total[-1] / parts * np.array([0.5, 1.0]))
            low, high = max(low, begin + 1), min(max(high, begin + 1), n - 1)
            if low > high:
                break
            cuts.append(int(low + np.argmin(passing[low : high + 1])))
        cuts.append(n)
        need = passing[cuts[1:-1]].sum() + max(total[b] - total[a] for a, b in itertools.pairwise(cuts))
        best, least = (cuts, need) if need < least else (best, least)
    return best


def _bytes(jaxpr: Any) -> tuple[np.ndarray, np.ndarray]:
    """The bytes that pass each place between operations, those of arguments left out; and those that each makes."""
    n = len(jaxpr.eqns)
    last = dict.fromkeys(_variables(jaxpr.outvars), n)
    for i, eqn in reversed(list(enumerate(jaxpr.eqns))):
        for v in _variables(eqn.invars):
            last.setdefault(v, i)
    passing, made = np.zeros(n + 1), np.zeros(n)
    for i, eqn in enumerate(jaxpr.eqns):
        for v in eqn.outvars:
            size = 0 if tree.is_random_key(v.aval) else v.aval.size * v.aval.dtype.itemsize
            made[i] += size
            passing[i + 1 : last.get(v, i) + 1] += size
    return passing, made


def _read(values: dict, atoms: Iterable) -> list:
    return [atom.val if isinstance(atom, Literal) else values[atom] for atom in atoms]


def _is_jitted(eqn: Any) -> bool:
    return eqn.primitive.name in ("jit", "pjit")  # the name differs between versions of JAX


def _is_scan(eqn: Any) -> bool:
    return eqn.primitive.name == "scan"


def _variables(atoms: Iterable) -> Iterator:
    return (v for v in atoms if not isinstance(v, Literal))
