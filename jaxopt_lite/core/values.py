"""The remembered call: one mechanism that makes rules, schedules and recipes into values.

A decorated factory does not run when it is called. It normalises and checks its arguments and returns a `Value` that
remembers the call. The value is a pytree: numbers, and the values among its arguments, are its children; everything
else is its static part. So it can be printed, parsed, compared, hashed, pickled, mapped over and differentiated. What
the factory makes (the closures of a rule, the function of a schedule) is built when it is first used.

Unflattening and unpickling run no checks and no user code, because the leaves need not be valid hyperparameters: those
of a gradient may be out of range, and those of `vmap`'s axes are not numbers.
"""

import collections.abc
import functools
import types
import typing
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxopt_lite.core import numbers, text
from jaxopt_lite.core.parameters import Spec, parameters_of

__all__ = ["Value"]


class Static:
    """The part of a value that is not leaves: factory and static arguments, compared by type and value."""

    def __init__(self, factory: Callable, order: tuple[str, ...], arguments: dict[str, Any]):
        self.factory, self.order, self.arguments = factory, order, arguments
        who = factory.spec.name
        self.key = (factory, order, tuple((name, _freeze(v, f"{who}: {name}")) for name, v in arguments.items()))
        self._hash = hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Static) and (self is other or self.key == other.key)

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        static = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"{self.factory.spec.name}: {static}"


class Value:
    """A remembered call. `factory` is the decorated function, `arguments` what it was called with, by name."""

    noun = "a value"  # in error messages
    traced = False  # whether its numbers are often traced: swept, differentiated
    factory: Any
    arguments: collections.abc.Mapping[str, Any]
    _static: Static

    def __init__(self, *args, **kwargs):
        raise TypeError(f"{type(self).__name__} cannot be made directly: decorate a factory, and call it")

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            raise AttributeError(
                f"{self.factory.spec.name} is a value and does not change; make another with "
                f"jaxopt_lite.replace(optimizer, {{{name!r}: ...}})"
            )
        super().__setattr__(name, value)

    @classmethod
    def remember(cls, factory: Callable, arguments: dict[str, Any]) -> typing.Self:
        """A value from arguments that are in normal form already: nothing is checked."""
        dynamic = [name for name, v in arguments.items() if factory.spec.parameters[name].is_dynamic(v)]
        rest = {name: v for name, v in arguments.items() if name not in dynamic}
        return cls._assemble(Static(factory, tuple(arguments), rest), [arguments[name] for name in dynamic])

    @classmethod
    def _assemble(cls, static: Static, children: typing.Iterable) -> typing.Self:
        self = cls.__new__(cls)
        dynamic = iter(children)
        arguments = {n: static.arguments[n] if n in static.arguments else next(dynamic) for n in static.order}
        self.__dict__.update(_static=static, factory=static.factory, arguments=types.MappingProxyType(arguments))
        return self

    @classmethod
    def accept(cls, value: Any, who: str, name: str) -> typing.Self:
        """Return a value of this class made from what was given, or raise a TypeError."""
        if isinstance(value, cls):
            return value
        raise TypeError(f"{who}: {name} must be {cls.noun}, got {_instead_of(value, cls)}")

    @property
    def built(self) -> Any:
        """What the factory makes of the arguments. It is kept, unless it would keep a tracer alive."""
        if "_built" in self.__dict__:
            return self.__dict__["_built"]
        spec = self.factory.spec
        for name, value in self.arguments.items():
            spec.parameters[name].check_use(value, spec.name)
        if not numbers.concrete(*jax.tree.leaves(self)):
            return spec.call(self.arguments)
        with jax.ensure_compile_time_eval():
            self._built = spec.call(self.arguments)
        return self._built

    def __repr__(self) -> str:
        return text.spell(self)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if type(self) is not type(other):
            return False
        leaves, structure = jax.tree.flatten(self)
        others, other_structure = jax.tree.flatten(other)
        return structure == other_structure and all(map(_same_leaf, leaves, others))

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        if "_hash" not in self.__dict__:
            self._hash = hash(jax.tree.structure(self))
        return self._hash

    def __reduce__(self) -> tuple:
        return _revive, (type(self), getattr(self.factory, "reference", self.factory), dict(self.arguments))


def _revive(cls: type, factory: Any, arguments: dict) -> Any:
    if isinstance(factory, tuple):  # a lifted factory is pickled as (lift, its arguments)
        factory = factory[0](*factory[1:])
    return cls.remember(factory, arguments)


def _flatten(value: Value) -> tuple[list, Static]:
    return [v for n, v in value.arguments.items() if n not in value._static.arguments], value._static


def _flatten_with_keys(value: Value) -> tuple[list, Static]:
    names = [n for n in value.arguments if n not in value._static.arguments]
    return [(jax.tree_util.GetAttrKey(n), value.arguments[n]) for n in names], value._static


def register(cls: type) -> type:
    """Make a class of values a pytree, with the arguments' names as keys."""
    unflatten = cls._assemble
    jax.tree_util.register_pytree_with_keys(cls, _flatten_with_keys, unflatten, _flatten)
    return cls


def remember_calls(function: Callable, makes: type, acts_on: str | None = None) -> Any:
    """The decorator behind `transformation` and `schedule`: calls of `function` become values of class `makes`.

    What a transformation declares that it acts on is remembered too.
    """
    if not callable(function):
        raise TypeError(f"a decorator of factories takes a function, got {numbers.describe(function)}")
    spec = Spec(function, makes, parameters_of(function, warn=makes.traced), acts_on)

    @functools.wraps(function)
    def factory(*args, **kwargs):
        value = makes.remember(factory, spec.bind(args, kwargs))
        build_early(value)
        return value

    remembering: Any = factory
    remembering.spec = spec
    return remembering


def build_early(value: Value) -> None:
    """Build one optimizer of concrete numbers: what the author's function refuses is refused now, not when used."""
    if numbers.concrete(*jax.tree.leaves(value)) and not _is_batch(value):
        value.built  # noqa: B018


def _is_batch(value: Any) -> bool:
    """Whether some number in a value has more dimensions than its annotation."""
    if isinstance(value, Value):
        parameters = value.factory.spec.parameters
        own = [(p, number) for p in parameters.values() for number in p.numbers_in(value.arguments[p.name])]
        return any(numbers.is_batch(number, p.range) for p, number in own) or _is_batch(dict(value.arguments))
    if isinstance(value, dict):
        value = tuple(value.values())
    return isinstance(value, tuple) and any(map(_is_batch, value))


def _instead_of(value: Any, cls: type[Value]) -> str:
    """Describe what was given in place of a value; most often it is a factory that was not called."""
    spec = getattr(value, "spec", None)
    if spec is not None and spec.makes is not cls:
        return f"the function {spec.name}, which makes {spec.makes.noun}"
    if callable(value) and not isinstance(value, Value):
        name = text.name_of(spec.function if spec else value)
        return f"the function {name}; " + ("" if spec else f"if it makes {cls.noun}, ") + f"call it: {name}(...)"
    if isinstance(value, (list, tuple, collections.abc.Iterator)) and not hasattr(value, "_fields"):
        return f"a {type(value).__name__}; give the elements one by one, with a star: (*{type(value).__name__})"
    return numbers.describe(value)


def _freeze(value: Any, what: str) -> Any:
    """A hashable substitute, equal exactly where types and values are equal (`True`, `1` and `1.0` all differ)."""
    if isinstance(value, dict):
        return (dict, tuple(sorted(((repr(k), _freeze(v, what)) for k, v in value.items()), key=lambda kv: kv[0])))
    if isinstance(value, (list, tuple)) and not isinstance(value, Value):  # a transformation is a tuple of closures
        return (type(value), tuple(_freeze(v, what) for v in value))
    if isinstance(value, Tracer):
        raise TypeError(f"{what} is static and must not be traced; annotate it as a number, or pass a Python value")
    if isinstance(value, (np.ndarray, jax.Array)):
        array = np.asarray(value)
        return (type(value), array.dtype.str, array.shape, array.tobytes())
    if isinstance(value, float) and value != value:
        return (type(value), "nan")  # so that NaN is equal to itself
    try:
        hash(value)
    except TypeError:
        leaves, structure = jax.tree.flatten(value)
        if leaves == [value]:
            raise TypeError(f"{what} is static and must be hashable, got a {type(value).__name__}") from None
        return (structure, tuple(_freeze(leaf, what) for leaf in leaves))
    return (type(value), value)


def _same_leaf(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if type(a) is not type(b) or isinstance(a, Tracer):
        return False
    if isinstance(a, (np.ndarray, jax.Array)):
        if isinstance(a, jax.Array) and (a.is_deleted() or b.is_deleted()):
            return False
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        a, b = np.asarray(a), np.asarray(b)
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return bool(a == b) or (a != a and b != b)
