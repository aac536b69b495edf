"""Schedules as values: functions of the step that are pytrees of their hyperparameters.

LearningRate            at least 0 and finite, or a schedule
NonNegativeOrSchedule   the same, for what is not a learning rate, such as a weight decay
DecayOrSchedule         in [0, 1), or a schedule
Scheduled               any finite number, or a schedule
"""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeAlias

import jax
import jax.numpy as jnp

from jaxopt_lite.core import numbers, text
from jaxopt_lite.core.numbers import Decay, Rate, Scalar
from jaxopt_lite.core.values import Value, register, remember_calls

__all__ = ["DecayOrSchedule", "LearningRate", "NonNegativeOrSchedule", "Schedule", "Scheduled", "schedule"]

P = ParamSpec("P")


@register
class Schedule(Value):
    """A function of the step that is also a pytree of its hyperparameters."""

    noun = "a schedule"
    traced = True

    def __call__(self, count: Any) -> jax.Array:
        """The value at step `count` (0 for the first update), as a float array of the shape of `count`."""
        t = jnp.asarray(count, dtype=jnp.result_type(float))
        if not callable(self.built):
            raise TypeError(f"{self.factory.spec.name} must return a function of the step, it returned {self.built!r}")
        with jax.numpy_dtype_promotion("standard"):  # the same promotion as inside a rule
            value: Any = self.built(t)
        is_number = isinstance(value, (int, float)) or hasattr(value, "dtype") and jnp.isrealobj(value)
        if not is_number or jnp.shape(value) not in ((), t.shape):
            raise TypeError(
                f"{self!r} must return one number a step, got {numbers.describe(value)} at a step of shape {t.shape}"
            )
        return jnp.broadcast_to(jnp.asarray(value, dtype=jnp.result_type(value, float)), t.shape)

    @classmethod
    def accept(cls, value: Any, who: str, name: str) -> "Schedule":
        """Accept a plain function of the step as a schedule, compared by identity."""
        # A public function of Optax is a factory, never a schedule itself.
        is_factory = hasattr(value, "spec") or text.optax_path(value)
        if callable(value) and not isinstance(value, (Value, type)) and not is_factory:
            return from_callable(value)
        return super().accept(value, who, name)


# pyright rejects the | of jax.Array's metaclass, but reads the aliases correctly.
NonNegativeOrSchedule: TypeAlias = Rate | Schedule | Callable[[jax.Array], jax.Array]  # pyright: ignore
LearningRate: TypeAlias = NonNegativeOrSchedule
DecayOrSchedule: TypeAlias = Decay | Schedule | Callable[[jax.Array], jax.Array]  # pyright: ignore
Scheduled: TypeAlias = Scalar | Schedule | Callable[[jax.Array], jax.Array]  # pyright: ignore


def schedule(function: Callable[P, Callable[[jax.Array], Any]]) -> Callable[P, Schedule]:
    """Make a factory of schedules.

    Args:
        function: the function to decorate. It returns a function of the step, a float array of any shape, whose result
            has the same shape. Every argument annotated with one of the number types is a leaf and may be traced, so
            the function must not branch on it in Python.

    >>> @schedule
    ... def inverse_time(init_value: numbers.NonNegative, scale: numbers.Positive = 10.0):
    ...     return lambda t: init_value / (1.0 + t / scale)
    >>> inverse_time(0.5)
    inverse_time(0.5)
    >>> float(inverse_time(0.5)(10))
    0.25
    """
    return remember_calls(function, Schedule)


@schedule
def from_callable(function: Callable):
    """Make a schedule of a plain function of the step. It has no leaves and is compared by identity."""
    return function
