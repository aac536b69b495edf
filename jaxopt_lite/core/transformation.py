"""Gradient transformations: pure pairs (init, update) that are also values.

The author of a rule writes the closures that Optax's users know, and the decorator makes the value:

    @transformation
    def scale_by_sign(): ...                return init, update
    @transformation
    def adamw(learning_rate, ...): ...      return chain(...)          a recipe

Everything that is the same for all rules happens here, once, at the boundary of the outermost value: grads, state and
params are checked against each other while tracing; floats of fewer than 32 bits are computed in float32, and gradients
narrower than their parameter in its dtype. The update leaves in the wider of the gradient's and the parameter's dtype,
because a weight decay of 1e-6 would be rounded away in a bfloat16 update; the state leaves in the dtypes of `init`.
Within it JAX's standard promotion holds, also where a user has set `jax_numpy_dtype_promotion="strict"`.
"""

import contextlib
import functools
import inspect
import threading
import typing
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_lite import tree
from jaxopt_lite.core import checks
from jaxopt_lite.core.values import Value, register, remember_calls

__all__ = [
    "GradientTransformation",
    "apply_updates",
    "chain",
    "identity",
    "set_to_zero",
    "stateless",
    "transformation",
]

P = ParamSpec("P")
ACTS_ON = ("coordinate", "matrix", "leaf", "tree")  # from the strongest promise to no promise
_boundary = threading.local()
_checked: dict[Any, bool] = {}  # for each kind of call that was checked, whether it has leaves to widen
_CHECKED = 1024  # entries kept


@register
class GradientTransformation(Value, optax.GradientTransformationExtraArgs):
    """A pair (init, update) that is also a pytree of its hyperparameters.

    `init(params) -> state`; `update(grads, state, params=None, **extra) -> (updates, state)`. It unpacks as a pair and
    is an `optax.GradientTransformationExtraArgs`, so it works wherever one does. Make one by calling a factory.
    """

    noun = "a transformation"
    traced = True

    def __new__(cls, *args, **kwargs):  # the factory passes no arguments; __init__ raises for a direct call
        def init(params):
            return _init(self, params)

        def update(updates, state, params=None, **extra):
            return _update(self, updates, state, params, extra)

        self = tuple.__new__(cls, (init, update))
        return self

    def __init_subclass__(cls, **kwargs):
        raise TypeError("GradientTransformation cannot be subclassed: decorate a factory with @transformation instead")

    @classmethod
    def _make(cls, pair):
        # Called by namedtuple's _replace: a pair with another function is not the result of this call any more.
        return optax.GradientTransformationExtraArgs(*pair)

    __repr__, __eq__, __ne__, __hash__ = Value.__repr__, Value.__eq__, Value.__ne__, Value.__hash__

    @property
    def inner(self) -> Any:
        """What a recipe chains, built from its arguments; None for a rule."""
        return self.built if isinstance(self.built, GradientTransformation) else None

    @property
    def acts_on(self) -> str:
        """What its numbers depend on: "coordinate", "matrix", "leaf" or "tree"; see `transformation`."""
        return max((own_acts_on(rule) for rule in deciding(self)), key=ACTS_ON.index)

    @property
    def routes(self) -> bool:
        """Whether a mask or labels decide leaf by leaf what it does."""
        return any(map(decides_by_leaf, deciding(self)))

    @classmethod
    def accept(cls, value: Any, who: str, name: str) -> "GradientTransformation":
        """Let a plain Optax pair pass for a transformation, compared by identity."""
        if isinstance(value, optax.GradientTransformation) and not isinstance(value, cls):
            return from_optax(value)
        return super().accept(value, who, name)


@typing.overload
def transformation(function: Callable[P, Any], /) -> Callable[P, GradientTransformation]: ...


@typing.overload
def transformation(
    *, acts_on: str | None = None
) -> Callable[[Callable[P, Any]], Callable[P, GradientTransformation]]: ...


def transformation(function: Any = None, /, *, acts_on: str | None = None) -> Any:
    """Make a factory of values from a function that returns a pair (init, update), or, for a recipe, a chain.

    Arguments annotated with one of the number types (`Scalar`, `NonNegative`, `Decay`, `LearningRate`, `Count`, ...)
    are leaves, those annotated `GradientTransformation` or `Schedule` are subtrees, all others are static. `update` may
    take `params=None` and any extra arguments by name, or `**extra` for all of them. Within a rule, moments are kept in
    the dtypes that `init` chose; there is no need to cast.

    Args:
        function: the factory.
        acts_on: what the update of a coordinate depends on beside its own gradient, parameter and state. "coordinate":
            sums over the whole tree at most, made by the functions of `tree`, so leaves may be stacked, flattened and
            cut; "matrix": its matrix, which is the last two axes of a leaf, all others being batches of matrices;
            "leaf": its leaf; "tree": anything. None is the weakest of the transformations that a chain, a recipe or a
            wrapper holds, and "tree" for a rule without inner transformations. A wrapper that declares something keeps
            to the weakest of that and of what it holds. Read by `stack_leaves`.

    Raises:
        ValueError: if `acts_on` is anything else.

    >>> from jaxopt_lite import Scalar
    >>> @transformation(acts_on="coordinate")
    ... def scale_by_square(factor: Scalar = 1.0):
    ...     def update(updates, state, params=None, **extra):
    ...         return jax.tree.map(lambda g: factor * g * jnp.abs(g), updates), state
    ...     return lambda params: (), update
    >>> optimizer = chain(scale_by_square(0.5), scale_by_square())
    >>> optimizer
    chain(scale_by_square(factor=0.5), scale_by_square())
    >>> updates, _ = optimizer.update(jnp.array([2.0]), optimizer.init(jnp.array([0.0])))
    >>> updates.tolist()
    [4.0]
    """
    if function is None:
        return functools.partial(transformation, acts_on=acts_on)
    return remember_calls(function, GradientTransformation, check_acts_on(acts_on, "transformation"))


def check_acts_on(word: Any, who: str) -> str | None:
    """Return what a rule is declared to act on; raises a ValueError for anything else."""
    if word is not None and word not in ACTS_ON:
        raise ValueError(f"{who}: acts_on must be one of {', '.join(map(repr, ACTS_ON))}, got {word!r}")
    return word


def deciding(value: GradientTransformation) -> Iterator[GradientTransformation]:
    """The rules that decide what a transformation acts on: recipes are taken apart, wrappers come with what they hold.

    A recipe that declares what it acts on is not taken apart.
    """
    if value.inner is not None and value.factory.spec.acts_on is None:
        yield from deciding(value.inner)
    else:
        yield value
        for held in _held(value):
            yield from deciding(held)


def _held(value: GradientTransformation) -> list[GradientTransformation]:
    """The transformations among the arguments, also in tuples and dicts."""
    is_transformation = lambda x: isinstance(x, GradientTransformation)
    return [x for x in jax.tree.leaves(dict(value.arguments), is_leaf=is_transformation) if is_transformation(x)]


def own_acts_on(rule: GradientTransformation) -> str:
    """What a rule by itself acts on: what it declares, else nothing where it only holds others."""
    return rule.factory.spec.acts_on or ("coordinate" if _held(rule) else "tree")


def decides_by_leaf(rule: GradientTransformation) -> bool:
    """Whether one of a rule's own arguments is a mask, or labels, which are not the same for all leaves."""
    parameters = rule.factory.spec.parameters
    return any(parameters[n].is_mask and not isinstance(v, bool | None) for n, v in rule.arguments.items())


def apply_updates(params: Any, updates: Any) -> Any:
    """params + updates, leaf by leaf, in the dtypes of params (the sum itself in the wider of the two).

    Args:
        params: the parameters, a pytree of floating or complex arrays.
        updates: what `update` returned, with the structure and shapes of params.

    Returns:
        The new parameters.

    Raises:
        ValueError: if structures or shapes differ; nothing is broadcast.
    """
    checks.check_params("apply_updates", params)
    checks.check_grads("apply_updates", updates, None, params, word="updates")

    def add(p, u):
        dtype = tree.dtype_of(p)
        wide = tree.wider(dtype, tree.dtype_of(u))
        return tree.cast(tree.cast(p, wide) + tree.cast(u, wide), dtype)

    return jax.tree.map(add, params, updates)


@transformation(acts_on="coordinate")
def identity():
    """Return the gradient unchanged."""
    return lambda params: optax.EmptyState(), lambda updates, state, params=None, **extra: (updates, state)


@transformation(acts_on="coordinate")
def set_to_zero():
    """Replace the gradient by zeros."""
    return stateless(_zeros)


def _zeros(updates, params):
    return jax.tree.map(jnp.zeros_like, updates)


@transformation
def stateless(f: Callable):
    """Apply a function of the whole trees, f(updates, params) -> updates, without a state.

    Args:
        f: the function. It is static and compared by identity: give a function of a module if the optimizer is to be
            pickled or rebuilt without compiling again.
    """
    if not callable(f):
        raise TypeError(f"stateless: f must be a function f(updates, params), got {f!r}")
    return lambda params: optax.EmptyState(), lambda updates, state, params=None, **extra: (f(updates, params), state)


@transformation
def chain(*transforms: GradientTransformation):
    """Apply transformations one after the other, from left to right. The state is the tuple of their states.

    Args:
        *transforms: transformations, each given one by one; at least one.

    Raises:
        TypeError: if it is given nothing, a list, or a factory that was not called.
    """
    if not transforms:
        raise TypeError("chain needs at least one transformation, got none; identity() does nothing")

    def init(params):
        return tuple(t.init(params) for t in transforms)

    def update(updates, state, params=None, **extra):
        new_state = []
        for t, s in zip(transforms, state, strict=True):
            updates, s = t.update(updates, s, params, **extra)
            new_state.append(s)
        return updates, tuple(new_state)

    return init, update


@transformation
def from_optax(pair: Any):
    """Let a plain Optax pair be part of a chain. It has no leaves and is compared by identity; see `lift`."""
    return pair


def _pair(value: GradientTransformation) -> tuple[Callable, Callable]:
    """The functions that the author wrote, the update taking any extra arguments; kept where `built` is."""
    if "_functions" in value.__dict__:
        return value.__dict__["_functions"]
    built, who = value.built, value.factory.spec.name
    if not (isinstance(built, tuple) and len(built) == 2 and all(map(callable, built))):
        raise TypeError(f"{who} must return a pair (init, update), or a chain(...), it returned {built!r}")
    pair = built[0], _accepting_extra(who, built[1])
    if "_built" in value.__dict__:
        value._functions = pair
    return pair


def _accepting_extra(who: str, update: Callable) -> Callable:
    """An author's update as update(updates, state, params=None, **extra): it is given just what it asks for."""
    signature = inspect.signature(update)
    try:
        signature.bind_partial(None, None, None)
    except TypeError:
        raise TypeError(
            f"{who}: update must take (updates, state, params=None, **extra), its signature is update{signature}"
        ) from None
    parameters = list(signature.parameters.values())
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    ordinary = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    needed = [p.name for p in parameters[3:] if p.default is p.empty and p.kind in ordinary]
    if takes_all and not needed:
        return update

    def accepting(updates, state, params=None, **extra):
        for name in needed:
            checks.require(extra.get(name), name, who)
        known = extra if takes_all else {k: v for k, v in extra.items() if k in signature.parameters}
        return update(updates, state, params, **known)

    return accepting


@contextlib.contextmanager
def _outermost(params: Any) -> Iterator[None]:
    """Run a rule as the outermost one, with params as given: the rules inside leave checks and dtypes to it.

    Rules, Optax's too, multiply counts, real and complex numbers with each other, which strict promotion refuses.
    """
    _boundary.inside, _boundary.params, _boundary.rounded = True, params, False
    try:
        with jax.numpy_dtype_promotion("standard"):
            yield
    finally:
        _boundary.inside, _boundary.params = False, None


def own_rounding(who: str, params: Any) -> list[Any]:
    """The dtypes of the parameters as the caller keeps them, for a rule that rounds to these itself.

    Rules see 16-bit parameters in float32. One that calls this, in `init` and in `update`, returns the float32
    differences of 16-bit numbers, and the outermost value leaves them as they are.

    Args:
        who: the rule, for messages.
        params: the parameters that it sees.

    Returns:
        A dtype for each leaf.

    Raises:
        ValueError: if it does not see the whole tree of parameters, but stacks or some of them.
    """
    leaves, structure = jax.tree.flatten(getattr(_boundary, "params", None))
    seen, seen_structure = jax.tree.flatten(params)
    if structure != seen_structure or list(map(np.shape, leaves)) != list(map(np.shape, seen)):
        raise ValueError(
            f"{who} must see all parameters, as they are: put it around stack_leaves, masked, partition and others "
            f"that pass on another tree, {who}(stack_leaves(...))"
        )
    _boundary.rounded = True
    return list(map(tree.dtype_of, leaves))


def _init(value: GradientTransformation, params: Any) -> Any:
    init, _ = _pair(value)
    if getattr(_boundary, "inside", False):
        return init(params)
    checks.check_params(value.factory.spec.name, params)
    with _outermost(params):
        return init(tree.widen(params))


def _update(value: GradientTransformation, updates: Any, state: Any, params: Any, extra: dict) -> tuple[Any, Any]:
    init, update = _pair(value)
    if getattr(_boundary, "inside", False):
        return checks.check_pair(value.factory.spec.name, update(updates, state, params, **extra))
    who, given = value.factory.spec.name, (updates, state, params)
    leaves, structure = jax.tree.flatten(given)
    kinds = [(np.shape(x), getattr(x, "dtype", type(x))) for x in leaves]
    # Without the numbers of the optimizer, so that another learning rate is not checked again.
    key = (jax.tree.structure(value), structure, *kinds)
    is_new = key not in _checked
    if is_new:
        checks.check_grads(who, updates, state, params)
    with _outermost(params):
        if is_new or _checked[key]:
            given = tree.widen(updates, params), tree.widen(state), tree.widen(params)
        if is_new:
            # A new function each time: JAX remembers what the same one made of equal shapes, and `own_rounding` of an
            # `init` depends on the dtypes that the shapes had before they were widened.
            made = lambda template: init(template)
            checks.check_state(who, state, made, given[0] if params is None else given[2])
        result = update(*given, **extra)
        rounded = _boundary.rounded
    if is_new:
        checks.check_result(who, result, updates, state)
        if len(_checked) >= _CHECKED:
            _checked.clear()
        _checked[key] = any(wide is not leaf for wide, leaf in zip(jax.tree.leaves(given), leaves, strict=True))
    new_updates, new_state = result
    like = (given[0], given[2]) if rounded else (updates, params)
    new_updates = tree.cast_like(new_updates, *like)
    if jax.tree.structure(new_state) == jax.tree.structure(state):
        new_state = tree.keep_dtypes(new_state, state)
    return new_updates, new_state
