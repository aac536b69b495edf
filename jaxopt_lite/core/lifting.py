"""Any of Optax's factories as a factory of values.

    muon = lift(optax.contrib.muon)
    optimizer = muon(1e-3)              a value: its floats and arrays are leaves

Optax's annotations are not ours, so what an argument is goes by its value: floats, arrays, schedules and
transformations are dynamic; bools, strings, None and functions are static; ints are dynamic where Optax annotates a
number that may be fractional. `static=` and `traced=` override by name.

Sophia and SAM want the loss as a function of the parameters in `update`, under names of their own. They are given it
from `value_fn`, which the loops of this package pass.
"""

import functools
import inspect
import typing
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import optax

from jaxopt_lite import tree
from jaxopt_lite.core import numbers, parameters, text, values
from jaxopt_lite.core.method import Objective
from jaxopt_lite.core.schedule import Schedule
from jaxopt_lite.core.transformation import GradientTransformation, check_acts_on

__all__ = ["lift"]

# By public name: arguments on which Optax's own code branches in Python, or that must stay whole numbers.
# They cannot be traced.
_STATIC = {
    "optax.contrib.muon": ("ns_steps",),
    "optax.contrib.scale_by_muon": ("ns_steps",),
    "optax.adafactor": (
        "min_dim_size_to_factor",
        "decay_rate",
        "decay_offset",
        "multiply_by_parameter_scale",
        "weight_decay_rate",
    ),
    "optax.lbfgs": ("memory_size",),
    "optax.contrib.galore": ("rank", "update_proj_gap"),
    "optax.contrib.sophia": ("gamma", "clip_threshold", "update_interval"),
    "optax.scale_by_sm3": ("b2",),
    "optax.apply_every": ("k",),
    "optax.contrib.reduce_on_plateau": ("factor", "rtol", "atol"),
}
# What Optax calls the decays of averages; its annotations give no ranges.
_DECAYS = ("b1", "b2", "b3", "beta", "decay", "decay_rate", "momentum", "rho")
_SEEDS = ("key", "seed", "random_seed")  # whole numbers, or keys in either of JAX's forms


def _as_objective(value_fn: Callable, extra: dict[str, Any]) -> dict[str, Any]:
    return {"obj_fn": value_fn, **extra}


def _as_gradient(value_fn: Callable, extra: dict[str, Any]) -> dict[str, Any]:
    grad_fn = lambda params, step: Objective(value_fn).value_and_grad(params)[2]
    return {"grad_fn": extra.get("grad_fn", grad_fn)}  # and nothing else, which it refuses


# By public name: the extra arguments of `update` for those that want the loss, made from `value_fn` and the others.
_WITH_LOSS = {
    "optax.contrib.sophia": _as_objective,
    "optax.contrib.hutchinson_estimator_diag_hessian": _as_objective,
    "optax.contrib.sam": _as_gradient,
}


class _Argument(parameters.Parameter):
    """What one value given to a lifted factory is: that depends on the value."""

    static: bool = False
    traced: bool = False

    @property
    def is_decay(self) -> bool:
        """Whether it has a name of decays. This refuses nothing: Optax takes values outside [0, 1), too."""
        return self.name in _DECAYS

    def normalise(self, value: Any, who: str) -> Any:
        if isinstance(value, optax.GradientTransformation):
            return GradientTransformation.accept(value, who, self.name)
        if self.static or isinstance(value, (bool, values.Value)) or value is None:
            return super().normalise(value, who)
        if self.name in _SEEDS:
            return value
        is_array = isinstance(value, (np.ndarray, np.generic, jax.Array))
        if isinstance(value, float) or is_array or (isinstance(value, (int, str)) and self.traced):  # str: an error
            return numbers.number(value, numbers.Range(), who, self.name)
        return super().normalise(value, who)

    def is_dynamic(self, value: Any) -> bool:
        if isinstance(value, values.Value):
            return True
        return not self.static and isinstance(value, (float, np.ndarray, jax.Array))

    def check_use(self, value: Any, who: str) -> None:
        if self.is_dynamic(value) and not isinstance(value, values.Value) and self.name not in _SEEDS:
            numbers.check_used_as_scalar(value, numbers.Range(), who, self.name)


class _Spec(parameters.Spec):
    """A factory of Optax, whose code calls any callable argument: a callable tree is passed as a plain function."""

    def call(self, arguments: dict[str, Any]) -> Any:
        pair = super().call({name: _plain(value) for name, value in arguments.items()})
        make_extra = _WITH_LOSS.get(text.optax_path(self.function) or "")
        return pair if make_extra is None else _with_loss(pair, make_extra)


def _plain(value: Any) -> Any:
    """Give Optax a plain function in place of a tree that can be called too, be it a module of bools or `by_path`."""
    is_node = callable(value) and not jax.tree_util.all_leaves([value])
    return functools.partial(_called, value) if is_node and not isinstance(value, Schedule) else value


def _with_loss(pair: Any, make_extra: Callable) -> Any:
    def update(updates, state, params=None, *, value_fn=None, **extra):
        return pair.update(updates, state, params, **(make_extra(value_fn, extra) if value_fn else extra))

    return optax.GradientTransformationExtraArgs(pair.init, update)


def _called(value: Any, *args: Any, **kwargs: Any) -> Any:
    return tree.chosen(value, *args) if len(args) == 1 and not kwargs else value(*args, **kwargs)


def lift(
    factory: Callable, static: Sequence[str] = (), traced: Sequence[str] = (), acts_on: str | None = None
) -> Callable[..., GradientTransformation]:
    """Make an Optax factory a factory of values.

    Args:
        factory: a function that returns an Optax pair, such as `optax.contrib.muon`.
        static: names of number arguments that Optax branches on in Python, and so cannot be traced.
        traced: names of int arguments that are numbers and may be traced.
        acts_on: the promise that its rule treats every "coordinate" alike, or every "matrix" or "leaf", as in
            `transformation`; None promises nothing.

    Returns:
        A factory with the signature of `factory`. Lifting the same function twice gives the same factory.

    Raises:
        TypeError: if `factory` is not callable, or has no argument of a name in `static` or `traced`.

    >>> import jaxopt_lite as jo
    >>> jo.lift(optax.fromage)(0.1)
    lift(optax.fromage)(0.1)
    """
    if not callable(factory) or isinstance(factory, values.Value):
        raise TypeError(f"lift takes a factory such as optax.contrib.muon, got {numbers.describe(factory)}")
    if hasattr(factory, "spec"):
        return factory
    names = [(n,) if isinstance(n, str) else tuple(sorted(n)) for n in (static, traced)]
    return _lift(factory, *names, check_acts_on(acts_on, "lift"))


@functools.cache
def _lift(factory: Callable, static: tuple[str, ...], traced: tuple[str, ...], acts_on: str | None) -> Callable:
    name, path = text.name_of(factory), text.optax_path(factory)
    signature = inspect.signature(factory)
    unknown = [n for n in (*static, *traced) if n not in signature.parameters]
    if unknown:
        raise TypeError(f"lift: {name} has no argument {unknown[0]!r}; it has {', '.join(signature.parameters)}")
    arguments = {}
    for n, p in signature.parameters.items():
        arguments[n] = argument = _Argument(name=n, kind=p.kind, default=p.default)
        object.__setattr__(argument, "static", n in static or (n in _STATIC.get(path or "", ()) and n not in traced))
        object.__setattr__(argument, "traced", n in traced or float in _members(p.annotation))
    spec = _Spec(factory, GradientTransformation, arguments, acts_on or "tree")

    @functools.wraps(factory)
    def lifted(*args, **kwargs):
        return GradientTransformation.remember(lifted, spec.bind(args, kwargs))

    known: Any = lifted
    known.spec = spec
    known.reference = (_lift_again, path or factory, static, traced, acts_on)
    overrides = "".join(
        f", {word}={list(names)!r}" for word, names in (("static", static), ("traced", traced)) if names
    )
    overrides += f", acts_on={acts_on!r}" if acts_on else ""
    known.spelling = f"lift({path or name}{overrides})"
    return known


def _lift_again(factory: Any, static: tuple[str, ...], traced: tuple[str, ...], acts_on: str | None = None) -> Callable:
    """Called by unpickling: Optax's functions are pickled by their public names, as its partials have no others."""
    return lift(text.optax_function(factory) if isinstance(factory, str) else factory, static, traced, acts_on)


def _members(hint: Any) -> tuple:
    return typing.get_args(hint) or (hint,)
