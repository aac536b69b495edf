"""Reading and replacing hyperparameters by name.

Paths: a transformation contributes its factory's name, a schedule the names of its arguments, `chain` nothing, a dict
its keys. So the peak of a warm-up inside AdamW inside a chain is `adamw.learning_rate.peak_value`, wherever the chain
stands. The second of two equal names in one place becomes `adam_1`.
"""

import difflib
from collections.abc import Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_lite.core.schedule import Schedule
from jaxopt_lite.core.transformation import GradientTransformation, chain
from jaxopt_lite.core.values import Value

__all__ = ["arrays", "as_optax", "hyperparameters", "replace"]

T = TypeVar("T", bound=Value)
Address = tuple[tuple[str, Any], ...]  # (argument, key in its container or None), from the outside in


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
    counts = {} if state is None else dict(_counts(optimizer, state))
    found: dict[str, Any] = {}
    hidden: list[str] = []
    for path, _, value in _entries(optimizer):
        if any(path.startswith(h) for h in hidden):
            continue
        if isinstance(value, Schedule):
            if id(value) in counts:
                found[path] = value(counts[id(value)])
                hidden.append(path + ".")
        elif _is_leaf(value):
            found[path] = value
    return found


def replace(optimizer: T, changes: dict[str, Any]) -> T:
    """A new value with some arguments changed.

    Args:
        optimizer: the value to change; it stays as it is.
        changes: new arguments by path or by any suffix of one that is unique, such as `{"weight_decay": 0.1}`. A
            number takes the dtype and shape of the array that it replaces. Also reaches None, schedules, and static
            arguments (then the treedef changes).

    Raises:
        ValueError: if a name matches no path, or several (they are listed), or the number is out of its range.

    >>> import jaxopt_lite as jo
    >>> jo.replace(jo.sgd(0.1, momentum=0.9), {"momentum": 0.5})
    sgd(0.1, momentum=0.5)
    """
    entries = list(_entries(optimizer))
    for name, new in changes.items():
        address = _find(name, entries, optimizer)
        optimizer = _replace_at(optimizer, address, new)
    return optimizer


def arrays(optimizer: T, dtype: Any = None) -> T:
    """The same value with every number as a strong array (float32, or float64 where x64 is on and asked for).

    Loops and `eqx.filter_jit` want this: Python floats are static there, or make a second trace when an array returns.
    """

    def array(x):
        if isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return x
        return jnp.array(x, dtype=dtype or jnp.float32)  # a copy: loops donate their arguments

    return jax.tree.map(array, optimizer)


def as_optax(optimizer: GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """The plain Optax pair, without leaves: for `nnx.Optimizer` and others that refuse arrays in static places."""
    return optax.GradientTransformationExtraArgs(*optimizer)


def rules(optimizer: GradientTransformation) -> list[GradientTransformation]:
    """The rules that an optimizer applies one after the other, recipes and chains taken apart."""
    if optimizer.factory is chain:
        return [rule for child in optimizer.arguments["transforms"] for rule in rules(child)]
    return [optimizer] if optimizer.inner is None else rules(optimizer.inner)


def _is_leaf(value: Any) -> bool:
    return isinstance(value, (float, np.ndarray, jax.Array)) and not isinstance(value, bool)


def _entries(value: Value, prefix: tuple = (), at: Address = (), used: set | None = None) -> Iterator[tuple]:
    """All arguments within a value as (path, address, argument), outer before inner."""
    used = set() if used is None else used
    if isinstance(value, GradientTransformation) and value.factory is not chain:
        name, n = value.factory.spec.name, 0
        while (*prefix, name) in used:
            n += 1
            name = f"{value.factory.spec.name}_{n}"
        prefix = (*prefix, name)
        used.add(prefix)
    for name, argument in value.arguments.items():
        path = (*prefix, name)
        if not isinstance(argument, GradientTransformation) and not _holds_transformations(argument):
            yield ".".join(map(str, path)), (*at, (name, None)), argument
        for key, child in _children(argument):
            if isinstance(child, GradientTransformation):
                inside = (*prefix, key) if isinstance(key, str) else prefix
            else:
                inside = path if key is None else (*path, key)
            yield from _entries(child, inside, (*at, (name, key)), used)


def _children(argument: Any) -> list[tuple[Any, Value]]:
    if isinstance(argument, Value):
        return [(None, argument)]
    if isinstance(argument, dict):
        return [(key, v) for key, v in argument.items() if isinstance(v, Value)]
    if isinstance(argument, tuple):
        return [(i, v) for i, v in enumerate(argument) if isinstance(v, Value)]
    return []


def _holds_transformations(argument: Any) -> bool:
    return any(isinstance(child, GradientTransformation) for _, child in _children(argument))


def _find(name: str, entries: list, optimizer: Value) -> Address:
    exact = [(p, a) for p, a, _ in entries if p == name]
    matches = exact or [(p, a) for p, a, _ in entries if p.endswith("." + name)]
    if len(matches) == 1:
        return matches[0][1]
    known = [p for p, _, _ in entries]
    if matches:
        raise ValueError(
            f"replace: {name!r} matches {', '.join(p for p, _ in matches)}; give a longer part of one path"
        )
    near = difflib.get_close_matches(name, [*known, *{p.rpartition(".")[2] for p in known}], 3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known) or 'none'}"
    raise ValueError(f"replace: {optimizer.factory.spec.name} has no hyperparameter {name!r}; {hint}")


def _replace_at(value: Value, address: Address, new: Any) -> Value:
    (name, key), *rest = address
    old = value.arguments[name]
    if not rest:
        changed = _like(value.factory.spec.normalise(name, new), old)
    elif key is None:
        changed = _replace_at(old, tuple(rest), new)
    elif isinstance(old, dict):
        changed = {**old, key: _replace_at(old[key], tuple(rest), new)}
    else:
        changed = (*old[:key], _replace_at(old[key], tuple(rest), new), *old[key + 1 :])
    return type(value).remember(value.factory, {**value.arguments, name: changed})


def _like(new: Any, old: Any) -> Any:
    """Give a new number the dtype of the array that it replaces, and a scalar its shape."""
    if not isinstance(old, jax.Array) or not _is_leaf(new):
        return new
    new = jnp.asarray(new, dtype=old.dtype)
    return jnp.broadcast_to(new, old.shape) if new.ndim == 0 else new


def _counts(value: Value, state: Any) -> Iterator[tuple[int, Any]]:
    """The step that each schedule inside a transformation has reached, as (id of the schedule, count).

    A rule keeps its own count in the field `count`; a wrapper keeps the state of its argument `inner` in the field
    `inner_state`, and those of a dict of transformations in `inner_states`, each within a masked state.
    """
    if not isinstance(value, GradientTransformation):
        return
    if value.inner is not None:
        yield from _counts(value.inner, state)
    elif value.factory is chain:
        for child, child_state in zip(value.arguments["transforms"], state, strict=True):
            yield from _counts(child, child_state)
    else:
        fields = getattr(state, "_fields", ())
        for argument in value.arguments.values():
            if isinstance(argument, Schedule) and "count" in fields:
                yield id(argument), state.count
            elif isinstance(argument, GradientTransformation) and "inner_state" in fields:
                yield from _counts(argument, state.inner_state)
            elif _holds_transformations(argument) and "inner_states" in fields:
                for key, child in _children(argument):
                    yield from _counts(child, state.inner_states[key].inner_state)
