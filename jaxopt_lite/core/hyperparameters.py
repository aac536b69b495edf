"""Reading and replacing hyperparameters by name.

Paths: a transformation contributes its factory's name, a schedule the names of its arguments, `chain` nothing, a dict
its keys, a pytree of arrays the places of its leaves. So the peak of a warm-up inside AdamW inside a chain is
`adamw.learning_rate.peak_value`, however deep the chain is nested. The second of two equal names in one place becomes
`adam_1`.
"""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_lite.core import numbers
from jaxopt_lite.core.method import Solver
from jaxopt_lite.core.parameters import Parameter, sortable
from jaxopt_lite.core.schedule import Schedule
from jaxopt_lite.core.transformation import GradientTransformation, chain
from jaxopt_lite.core.values import Value, build_early

__all__ = ["arrays", "as_optax", "hyperparameters", "replace"]

T = TypeVar("T", bound=Value)
Address = tuple[tuple[str, Any], ...]  # (argument, key in its container or _ITSELF), from the outside in
_ITSELF = object()  # None may be a key: a label of `partition`


class _Leaf(NamedTuple):
    """The key of a leaf in an argument that is a pytree of arrays."""

    index: int


def hyperparameters(optimizer: Value, state: Any = None) -> dict[str, Any]:
    """The leaves by their paths; with a state, each schedule by the value that the next update uses.

    Args:
        optimizer: a transformation or a schedule.
        state: the state of the optimizer; then `hyperparameters(optimizer, state)["adamw.learning_rate"]` is today's
            learning rate, a scalar array (also inside jit).

    Returns:
        A dict in the order of the arguments.

    >>> import jaxopt_lite as jo
    >>> jo.hyperparameters(jo.chain(jo.clip_by_global_norm(1.0), jo.sgd(0.1, momentum=0.9)))
    {'clip_by_global_norm.max_norm': 1.0, 'sgd.learning_rate': 0.1, 'sgd.momentum': 0.9}
    """
    _require_value("hyperparameters", optimizer)
    counts = _counts(optimizer, state) if state is not None and isinstance(optimizer, GradientTransformation) else {}
    found: dict[str, Any] = {}
    hidden: list[str] = []
    for path, address, value in _entries(optimizer):
        if any(path.startswith(h) for h in hidden):
            continue
        if isinstance(value, Schedule):
            if address in counts:
                found[path] = value(counts[address])
                hidden.append(path + ".")
        elif _is_leaf(value) and _parameter(optimizer, address).is_dynamic(value):
            found[path] = value
    return found


def parameters_of(value: Value) -> dict[str, Parameter]:
    """What the annotation of each hyperparameter says: the paths are those of `hyperparameters`, in the same order."""
    entries = [(path, _parameter(value, address), argument) for path, address, argument in _entries(value)]
    return {path: known for path, known, argument in entries if _is_leaf(argument) and known.is_dynamic(argument)}


def replace(optimizer: T, changes: dict[str, Any]) -> T:
    """A new value with some arguments changed.

    Args:
        optimizer: the value to start from; it is not modified.
        changes: new arguments by path or by any suffix of one that is unique, such as `{"weight_decay": 0.1}`. A
            number takes the dtype and shape of the array that it replaces. Also reaches None, schedules, and static
            arguments (then the treedef changes). The order does not matter: a new schedule comes before changes of
            its own arguments.

    Raises:
        ValueError: if a name matches no path, or several (they are listed), if two names are one path, if a name is
            gone with what another one replaces, or if the number is out of its range.

    >>> import jaxopt_lite as jo
    >>> jo.replace(jo.sgd(0.1, momentum=0.9), {"momentum": 0.5})
    sgd(0.1, momentum=0.5)
    """
    _require_value("replace", optimizer)
    if not isinstance(changes, Mapping) or not all(isinstance(name, str) for name in changes):
        raise TypeError(f"replace: changes must be a dict of name: value, got {changes!r}")
    names: dict[str, str] = {}  # the name that was given, by path
    for name in changes:
        path = _find(name, optimizer)
        if path in names:
            raise ValueError(f"replace: {names[path]!r} and {name!r} are both {path}; give one of them")
        names[path] = name
    for path in sorted(names, key=lambda path: path.count(".")):  # outer arguments first, then those inside them
        address = {p: at for p, at, _ in _entries(optimizer)}.get(path)
        if address is None:
            outer = next(names[p] for p in names if path.startswith(p + "."))
            raise ValueError(
                f"replace: {names[path]!r} is gone, because {outer!r} becomes {numbers.describe(changes[outer])}; "
                f"leave {names[path]!r} out, or give it within the new {outer!r}"
            )
        optimizer = _replace_at(optimizer, address, changes[names[path]])
    _build_early(optimizer)
    return optimizer


def arrays(optimizer: T, dtype: Any = None) -> T:
    """The same value with every number as a strong array (float32, or float64 where x64 is on and asked for).

    Loops and `eqx.filter_jit` want this: Python floats are static there, or make a second trace when an array returns.

    Args:
        optimizer: a transformation, a schedule or another value.
        dtype: the floating dtype of the arrays; None means float32.
    """
    _require_value("arrays", optimizer)

    def array(x):
        if isinstance(x, jax.Array) and not jnp.issubdtype(x.dtype, jnp.inexact):
            return jnp.copy(x)  # a random key, in either of JAX's forms
        if np.iscomplexobj(x):
            return jnp.array(x, dtype=jnp.result_type(dtype or jnp.float32, jnp.complex64))
        return jnp.array(x, dtype=dtype or jnp.float32)  # copies, because loops donate their arguments

    return jax.tree.map(array, optimizer)


def as_optax(optimizer: GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """The plain Optax pair, without leaves: for `nnx.Optimizer` and others that refuse arrays in static places.

    Args:
        optimizer: a transformation.
    """
    return optax.GradientTransformationExtraArgs(*optimizer)


def rules(optimizer: GradientTransformation) -> list[GradientTransformation]:
    """The rules that an optimizer applies one after the other, recipes and chains taken apart."""
    if optimizer.factory is chain:
        return [rule for child in optimizer.arguments["transforms"] for rule in rules(child)]
    return [optimizer] if optimizer.inner is None else rules(optimizer.inner)


def _require_value(who: str, optimizer: Any) -> None:
    if not isinstance(optimizer, Value):
        raise TypeError(
            f"{who} needs a transformation or a schedule of jaxopt_lite, got {numbers.describe(optimizer)}; "
            "jaxopt_lite.lift makes Optax's factories ones of jaxopt_lite"
        )


def _build_early(value: Value) -> None:
    """Build all values inside, too: one may refuse what was changed, such as a warm-up longer than the whole."""
    for argument in value.arguments.values():
        for _, child in _children(argument):
            _build_early(child)
    build_early(value)


def _is_leaf(value: Any) -> bool:
    return isinstance(value, (float, np.ndarray, jax.Array)) and not isinstance(value, bool)


def _parameter(value: Value, address: Address) -> Parameter:
    """What is known of the argument at an address."""
    *outer, (name, _) = address
    return _at(value, tuple(outer)).factory.spec.parameters[name]


def _entries(value: Value, prefix: tuple = (), at: Address = (), used: set | None = None) -> Iterator[tuple]:
    """All arguments within a value as (path, address, argument), outer before inner."""
    used = set() if used is None else used
    if isinstance(value, (GradientTransformation, Solver)) and value.factory is not chain:
        name, n = value.factory.spec.name, 0
        while (*prefix, name) in used:
            n += 1
            name = f"{value.factory.spec.name}_{n}"
        prefix = (*prefix, name)
        used.add(prefix)
    for name, argument in value.arguments.items():
        path = (*prefix, name)
        if not isinstance(argument, GradientTransformation) and not _holds_transformations(argument):
            yield ".".join(map(str, path)), (*at, (name, _ITSELF)), argument
        if value.factory.spec.parameters[name].is_arrays:
            for i, (keys, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(argument)):
                if keys:
                    inside = (*path, *(jax.tree_util.keystr((key,), simple=True) for key in keys))
                    yield ".".join(map(str, inside)), (*at, (name, _Leaf(i))), leaf
        for key, child in _children(argument):
            if isinstance(child, GradientTransformation):
                inside = (*prefix, str(key)) if isinstance(argument, dict) else prefix
            else:
                inside = path if key is _ITSELF else (*path, key)
            yield from _entries(child, inside, (*at, (name, key)), used)


def _children(argument: Any) -> list[tuple[Any, Value]]:
    if isinstance(argument, Value):
        return [(_ITSELF, argument)]
    if isinstance(argument, dict):
        return [(key, v) for key, v in argument.items() if isinstance(v, Value)]
    if isinstance(argument, tuple):
        return [(i, v) for i, v in enumerate(argument) if isinstance(v, Value)]
    return []


def _holds_transformations(argument: Any) -> bool:
    return any(isinstance(child, GradientTransformation) for _, child in _children(argument))


def _find(name: str, optimizer: Value) -> str:
    """The path that a name is, or that ends with it."""
    known = [path for path, _, _ in _entries(optimizer)]
    matches = [p for p in known if p == name] or [p for p in known if p.endswith("." + name)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise ValueError(f"replace: {name!r} matches {', '.join(matches)}; give a longer part of one path")
    near = difflib.get_close_matches(name, [*known, *{p.rpartition(".")[2] for p in known}], 3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known) or 'none'}"
    raise ValueError(f"replace: {optimizer.factory.spec.name} has no hyperparameter {name!r}; {hint}")


def _replace_at(value: Any, address: Address, new: Any) -> Any:
    (name, key), *rest = address
    old = value.arguments[name]
    if isinstance(key, _Leaf):
        leaves, structure = jax.tree.flatten(old)
        leaves[key.index] = _like(value.factory.spec.normalise(name, new), leaves[key.index])
        changed = structure.unflatten(leaves)
    elif not rest:
        changed = _like(value.factory.spec.normalise(name, new), old)
    elif key is _ITSELF:
        changed = _replace_at(old, tuple(rest), new)
    elif isinstance(old, dict):
        changed = sortable({**old, key: _replace_at(old[key], tuple(rest), new)})
    else:
        changed = (*old[:key], _replace_at(old[key], tuple(rest), new), *old[key + 1 :])
    return type(value).remember(value.factory, {**value.arguments, name: changed})


def _like(new: Any, old: Any) -> Any:
    """Give a new number the dtype of the array that it replaces, and a scalar its shape."""
    if not isinstance(old, jax.Array) or not _is_leaf(new):
        return new
    new = jnp.asarray(new, dtype=old.dtype)
    return jnp.broadcast_to(new, old.shape) if new.ndim == 0 else new


_STEPS = {"count": 0, "t": 0, "step_count": 1}  # fields of a state that count steps, and what they begin with
_INNER = ("inner_state", "base_optimizer_state")


def _counts(value: Any, state: Any) -> dict[Address, Any]:
    """The step that each schedule inside a transformation has reached, by the schedule's address.

    A rule keeps its own count in the field `count` (`t`, or from 1 on `step_count`, where Optax names it so); a wrapper
    keeps the state of its argument `inner` in the field `inner_state` or `base_optimizer_state`, and those of a dict of
    transformations in `inner_states`, each within a masked state.
    """
    if value.inner is not None:  # a recipe passes its schedules on unchanged
        passed_on = {id(_at(value.inner, at)): count for at, count in _counts(value.inner, state).items()}
        return {at: passed_on[id(argument)] for _, at, argument in _entries(value) if id(argument) in passed_on}
    is_tuple = isinstance(state, tuple)
    if value.factory is chain and (not is_tuple or len(state) != len(value.arguments["transforms"])):
        raise ValueError(
            f"hyperparameters: the state is not one of {value!r}, whose state is a tuple of "
            f"{len(value.arguments['transforms'])}; give the state that its init or update returned"
        )
    counts: dict = {}
    own: Any = state
    fields = getattr(own, "_fields", ())
    for name, argument in value.arguments.items():
        if isinstance(argument, Schedule) and any(field in fields for field in _STEPS):
            counts[((name, _ITSELF),)] = next(getattr(own, f) - first for f, first in _STEPS.items() if f in fields)
        for key, child in _children(argument):
            if not isinstance(child, GradientTransformation):
                continue
            if value.factory is chain:
                inside = _counts(child, own[key])
            elif key is _ITSELF and (held := [f for f in _INNER if f in fields]):
                inside = _counts(child, getattr(own, held[0]))
            elif key is not _ITSELF and "inner_states" in fields:
                inside = _counts(child, own.inner_states[key].inner_state)
            else:
                continue
            counts |= {((name, key), *at): count for at, count in inside.items()}
    return counts


def _at(value: Value, address: Address) -> Any:
    for name, key in address:
        value = value.arguments[name] if key is _ITSELF else value.arguments[name][key]
    return value
