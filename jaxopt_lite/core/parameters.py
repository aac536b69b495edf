"""What the annotations of a factory's arguments mean, and how arguments are brought into a normal form.

b1: Decay                               a number: a leaf, checked against its range
learning_rate: LearningRate             a number or a schedule
inner: GradientTransformation           a value: a subtree; so are Sequence[...] and Mapping[..., ...] of values
key: Key                                a seed is static, a key is a leaf
mu_dtype: Dtype                         a floating dtype, remembered by its name
nesterov: bool, mode: Literal[...]      static, checked
mask: Mask                              static: a tree, or a function of params, by which leaves are treated differently
arguments: Arrays                       a pytree of numbers and arrays, all of them leaves
other: Any                              static

An argument without an annotation is static too. Where it may be a number, a decorator whose values are swept warns.
"""

import collections.abc
import dataclasses
import functools
import inspect
import types
import typing
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxopt_lite.core import numbers, text
from jaxopt_lite.core.numbers import Range

__all__ = ["Arrays", "Dtype", "Key", "Mask"]

_CONTAINERS = (dict, list, tuple, collections.abc.Mapping, collections.abc.Sequence)
_KEY = object()
Key = Annotated[int | jax.Array, _KEY]
"""A seed: an int is static. A key is a leaf, and so is a seed in an array of shape (), which becomes its key."""
_MASK = object()
Mask = Annotated[Any, _MASK]
"""A tree of bools or labels in the structure of params, or a function of params that returns one; it is static."""
_DECAY = typing.get_args(numbers.Decay)[1]
_DTYPE = object()
Dtype = Annotated[Any, _DTYPE]
"""A floating or complex dtype in any form; it is remembered by its name."""
_ARRAYS = object()
Arrays = Annotated[Any, _ARRAYS]
"""A pytree of numbers and arrays of any shapes, such as further arguments of a function; its structure is static."""


@dataclasses.dataclass(frozen=True)
class Parameter:
    """The properties of one argument, read from its annotation."""

    name: str
    kind: Any  # as in inspect.Parameter
    default: Any
    range: Range | None = None  # a number in this range
    optional: bool = False  # None is allowed
    holds: type | None = None  # a value of this class
    many: bool = False  # or a list, tuple or dict of such values
    is_key: bool = False
    is_mask: bool = False
    is_dtype: bool = False
    is_arrays: bool = False
    is_bool: bool = False
    choices: tuple = ()  # the options of a Literal

    @property
    def is_decay(self) -> bool:
        """Whether it is the decay of an average, annotated as `Decay`."""
        return self.range == _DECAY

    def normalise(self, value: Any, who: str) -> Any:
        """The argument in its normal form; errors name `who` and the argument."""
        if value is None and (self.optional or self.default is None):
            return None
        if self.range is not None:
            if self.holds is not None and callable(value) and not isinstance(value, type):
                return self.holds.accept(value, who, self.name)
            return numbers.number(value, self.range, who, self.name, f" or {self.holds.noun}" if self.holds else "")
        if self.holds is not None:
            accept = functools.partial(self.holds.accept, who=who, name=self.name)
            return _map_container(accept, value, who, self.name) if self.many else accept(value)
        if self.is_key:
            return _key(value, f"{who}: {self.name}")
        if self.is_dtype:
            return _float_dtype(value, f"{who}: {self.name}")
        if self.is_arrays:
            return _float_arrays(value, f"{who}: {self.name}")
        if isinstance(value, Tracer):
            return value  # raises later, with the other static arguments
        if self.is_bool and not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"{who}: {self.name} must be True or False, got {numbers.describe(value)}")
        if self.choices and not (isinstance(value, str) and value in self.choices):
            raise ValueError(f"{who}: {self.name} must be one of {', '.join(map(repr, self.choices))}, got {value!r}")
        if isinstance(value, (np.ndarray, list, dict)) or type(value) is tuple:
            return copied(value)  # copied, because the caller may change them after they were hashed
        return value.item() if isinstance(value, np.generic) else _dtype_name(value)

    def is_dynamic(self, value: Any) -> bool:
        """Whether the (normalised) argument is a child of the pytree rather than part of its structure."""
        if value is None:
            return False
        if self.is_key:
            return isinstance(value, jax.Array)
        return self.range is not None or self.holds is not None or self.is_arrays

    def check_use(self, value: Any, who: str) -> None:
        """Raise if a number has more dimensions than its annotation allows."""
        for number in self.numbers_in(value):
            numbers.check_used_as_scalar(number, self.range or Range(), who, self.name)

    def numbers_in(self, value: Any) -> list:
        """The numbers in the (normalised) argument; several where it stands for `*args` or `**kwargs`."""
        several = {inspect.Parameter.VAR_POSITIONAL: list, inspect.Parameter.VAR_KEYWORD: dict.values}
        values = several.get(self.kind, lambda v: [v])(value) if self.range is not None else []
        return [v for v in values if v is not None and not hasattr(v, "factory")]


@dataclasses.dataclass(frozen=True, eq=False)
class Spec:
    """What is known of a factory: its function, the class of its values, and its parameters in order."""

    function: Callable
    makes: type
    parameters: dict[str, Parameter]
    acts_on: str | None = None  # what a transformation declares

    @functools.cached_property
    def name(self) -> str:
        return text.name_of(self.function)

    @functools.cached_property
    def signature(self) -> inspect.Signature:
        return inspect.signature(self.function)

    def bind(self, args: tuple, kwargs: dict) -> dict[str, Any]:
        """Arguments by name in the order of the signature, defaults filled in, normalised and checked."""
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            takes_any = any(p.kind is p.VAR_KEYWORD for p in self.signature.parameters.values())
            unknown = [name for name in kwargs if name not in self.signature.parameters and not takes_any]
            # An unknown name is reported before a missing one, because it may be that one misspelt.
            fault = f"got an unexpected keyword argument {unknown[0]!r}" if unknown else str(error)
            plain = [p.replace(annotation=p.empty) for p in self.signature.parameters.values()]
            signature = self.signature.replace(parameters=plain, return_annotation=inspect.Signature.empty)
            raise TypeError(f"{self.name}: {fault}; its signature is {self.name}{signature}") from None
        bound.apply_defaults()
        return {name: self.normalise(name, value) for name, value in bound.arguments.items()}

    def normalise(self, name: str, value: Any) -> Any:
        parameter = self.parameters[name]
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            return tuple(parameter.normalise(v, self.name) for v in value)
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            return {k: parameter.normalise(v, self.name) for k, v in value.items()}
        return parameter.normalise(value, self.name)

    def call(self, arguments: dict[str, Any]) -> Any:
        """Run the author's function."""
        args, kwargs = [], {}
        for name, value in arguments.items():
            kind = self.parameters[name].kind
            if kind is inspect.Parameter.VAR_POSITIONAL:
                args.extend(value)
            elif kind is inspect.Parameter.VAR_KEYWORD:
                kwargs.update(value)
            elif kind is inspect.Parameter.KEYWORD_ONLY:
                kwargs[name] = value
            else:
                args.append(value)
        return self.function(*args, **kwargs)


def parameters_of(function: Callable, warn: bool = False) -> dict[str, Parameter]:
    """The parameters of a function in order, read from its annotations.

    With `warn`, a UserWarning names each parameter without an annotation that has no default or a number as default.
    """
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = {}
    for name, parameter in inspect.signature(function).parameters.items():
        may_be_number = parameter.default is parameter.empty or isinstance(parameter.default, (int, float))
        if warn and name not in hints and may_be_number and not isinstance(parameter.default, bool):
            warnings.warn(
                f"{text.name_of(function)}: {name} has no annotation, so it is static: it cannot be traced, and each "
                "value of it is another program; a number type (Scalar, NonNegative, Decay, Count, ...) makes it a "
                "hyperparameter, LearningRate a number or a schedule, GradientTransformation an inner rule; Any says "
                "that it is static",
                stacklevel=4,  # the warning shows the line of the decorator
            )
        options = _options(hints.get(name))
        classes = [c for option in options for c in _classes(option)]
        marks = [mark for option in options for mark in getattr(option, "__metadata__", ())]
        parameters[name] = Parameter(
            name=name,
            kind=parameter.kind,
            default=parameter.default,
            range=next((mark for mark in marks if isinstance(mark, Range)), None),
            optional=type(None) in options,
            holds=next((c for c in classes if hasattr(c, "accept")), None),  # a class of values
            many=any(typing.get_origin(option) in _CONTAINERS for option in options),
            is_key=_KEY in marks,
            is_mask=_MASK in marks,
            is_dtype=_DTYPE in marks,
            is_arrays=_ARRAYS in marks,
            is_bool=set(options) - {type(None)} == {bool},
            choices=typing.get_args(options[0]) if typing.get_origin(options[0]) is typing.Literal else (),
        )
    return parameters


def _options(hint: Any) -> tuple:
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def _classes(hint: Any) -> list[type]:
    """The classes named anywhere in an annotation."""
    if typing.get_args(hint):
        return [c for arg in typing.get_args(hint) for c in _classes(arg)]
    return [hint] if isinstance(hint, type) else []


def copied(value: Any) -> Any:
    """The same value in containers and arrays of its own; what they hold stays itself, functions above all."""
    if isinstance(value, dict):
        return {key: copied(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)(copied(v) for v in value)
    if isinstance(value, np.ndarray):
        return value.copy()
    return value.item() if isinstance(value, np.generic) else value


def _map_container(f: Callable, value: Any, who: str, name: str) -> Any:
    if isinstance(value, dict):
        return sortable({key.item() if isinstance(key, np.generic) else key: f(v) for key, v in value.items()})
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return tuple(f(v) for v in value)
    return f(value)


def sortable(mapping: dict) -> dict:
    """A dict that JAX can flatten, which sorts keys: where they have no order (enums, 1 and "a"), it is made here."""
    if any(all(isinstance(key, kind) for key in mapping) for kind in (str, (int, float))):
        return mapping
    return OrderedDict(sorted(mapping.items(), key=lambda item: (type(item[0]).__qualname__, repr(item[0]))))


def _key(value: Any, what: str) -> Any:
    if isinstance(value, np.ndarray):
        value = value[()] if value.ndim == 0 else jnp.array(value)
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        if not 0 <= value < 2**32:  # JAX takes 32 bits of a seed: 2**32 would be 0 again
            raise ValueError(f"{what} must be a seed in [0, 2**32) or a key, got {value}")
        return int(value)
    if isinstance(value, jax.Array) and value.ndim == 0 and jnp.issubdtype(value.dtype, jnp.integer):
        return jax.random.key(value)  # a seed that was made an array, as by `optax.inject_hyperparams`
    is_key = isinstance(value, jax.Array) and (
        jnp.issubdtype(value.dtype, jax.dtypes.prng_key) or value.dtype == np.uint32
    )
    if not is_key:
        raise TypeError(f"{what} must be a seed (an int) or a key, got {numbers.describe(value)}; see jax.random.key")
    return value


def _float_arrays(value: Any, what: str) -> Any:
    """A pytree of numbers as Python's floats and complex numbers, and floating or complex arrays, NumPy's copied."""

    def leaf(path, x):
        x = x.item() if isinstance(x, np.generic) else x
        if isinstance(x, (int, float, complex)) and not isinstance(x, bool):
            return x if isinstance(x, complex) else float(x)
        is_array = isinstance(x, (np.ndarray, jax.Array))
        if is_array and jnp.issubdtype(x.dtype, jnp.inexact):
            return x.copy() if isinstance(x, np.ndarray) else x
        if is_array and jnp.issubdtype(x.dtype, jnp.integer):
            return x.astype(np.float32)
        where = what + jax.tree_util.keystr(path)
        raise TypeError(f"{where} must be a number or an array of numbers, got {numbers.describe(x)}")

    return jax.tree_util.tree_map_with_path(leaf, value)


def _float_dtype(value: Any, what: str) -> str:
    try:
        dtype = jax.dtypes.canonicalize_dtype(value) if value is float else jnp.dtype(value)
    except TypeError:
        dtype = None
    if dtype is None or not jnp.issubdtype(dtype, jnp.inexact):
        raise TypeError(f"{what} must be a floating dtype such as 'bfloat16', or None, got {numbers.describe(value)}")
    return dtype.name


def _dtype_name(value: Any) -> Any:
    """A dtype becomes its name, in whatever form it came."""
    is_scalar_type = isinstance(value, type) and issubclass(value, np.generic)
    if isinstance(value, np.dtype) or is_scalar_type or type(value).__name__ == "_ScalarMeta":
        return jnp.dtype(value).name
    return value
