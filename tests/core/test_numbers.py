"""What may stand for a number, what becomes of it, and the ends of the ranges."""

import fractions

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from jaxopt_lite.core import numbers
from jaxopt_lite.core.numbers import Range
from tests.each import for_each

ANY = Range()


def leaf(value, range_=ANY):
    return numbers.number(value, range_, "rule", "x")


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.int64(2), fractions.Fraction(2)])
def test_real_numbers_become_python_floats(value):
    assert leaf(value) == 2.0 and type(leaf(value)) is float


def test_a_numpy_scalar_keeps_its_own_value():
    assert leaf(np.float32(0.1)) == float(np.float32(0.1)) != 0.1


def test_arrays_stay_arrays_and_integers_become_floats():
    given = jnp.array([1.0, 2.0])
    assert leaf(given) is given
    assert leaf(jnp.array(3)).dtype == jnp.float32
    assert leaf(np.arange(3)).dtype == np.float32


def test_numpy_arrays_are_copied_because_they_change():
    given = np.array([1.0, 2.0])
    kept = leaf(given)
    given[0] = 9
    assert kept[0] == 1


# Each range with numbers just inside and just outside of it, as they are in float32.
RANGES = [
    ("Scalar", [-3e38, 0.0, 3e38], [jnp.inf, -jnp.inf, jnp.nan, 1e39]),
    ("NonNegative", [0.0, 1e-45, jnp.inf], [-1e-45, jnp.nan]),
    ("Positive", [1e-45, jnp.inf], [0.0, 1e-46, -1.0, jnp.nan]),
    ("Fraction", [0.0, 1.0, 1 + 1e-9], [-1e-7, 1 + 1e-6, jnp.nan]),
    ("Decay", [0.0, 1 - 1e-7], [1.0, 1 - 1e-9, -1e-30, jnp.nan]),
    ("Count", [0.0, 3e38], [-1.0, jnp.inf, jnp.nan]),
    ("PositiveCount", [0.5, 1.0], [0.0, -1.0, jnp.inf, jnp.nan]),
]


def range_of(name):
    return getattr(numbers, name).__metadata__[0]


@for_each((name, value) for name, inside, _ in RANGES for value in inside)
def test_ranges_let_in(row):
    name, value = row
    assert leaf(value, range_of(name)) == value
    assert leaf(jnp.array(value), range_of(name)) == jnp.float32(value)


@for_each((name, value) for name, _, outside in RANGES for value in outside)
def test_ranges_keep_out(row):
    name, value = row
    with pytest.raises(ValueError, match="rule: x must be"):
        leaf(value, range_of(name))
    with np.errstate(over="ignore"):
        array = np.array([0.5, value], np.float32)
    with pytest.raises(ValueError, match="rule: x must be"):
        leaf(array, range_of(name))


def test_a_range_says_itself_as_in_a_book():
    said = {name: str(range_of(name)) for name, _, _ in RANGES}
    assert said == {
        "Scalar": "finite",
        "NonNegative": "at least 0",
        "Positive": "above 0",
        "Fraction": "in [0, 1]",
        "Decay": "in [0, 1)",
        "Count": "at least 0 and finite",
        "PositiveCount": "above 0 and finite",
    }


def test_traced_numbers_are_not_checked():
    optimizer = jax.jit(lambda b1: jo.adam(-b1, b1=2 * b1))(1.0)
    assert jax.tree.leaves(optimizer)[:2] == [-1.0, 2.0]


def test_checks_inside_a_trace_make_no_tracers():
    # Constants in a jitted function are concrete, and must still be refused there.
    def f(x):
        with pytest.raises(ValueError, match="b1"):
            jo.adam(0.1, b1=1.5)
        with pytest.raises(ValueError, match="b1"):
            jo.adam(0.1, b1=np.float32(1.5))
        return x

    jax.jit(f)(1.0)


def test_gradients_may_stand_where_numbers_stood():
    # A gradient with respect to an optimizer is an optimizer whose decays are anything at all.
    slopes = jax.grad(lambda o: -3 * o.arguments["b1"] + 5 * o.arguments["b2"])(jo.adam(0.1))
    assert slopes.arguments["b1"] == -3 and slopes.arguments["b2"] == 5


def test_tables_come_from_dicts_rows_and_arrays():
    rows = [[10.0, 0.5], [20.0, 0.1]]
    schedules = [jo.piecewise_constant_schedule(1.0, t) for t in ({10: 0.5, 20: 0.1}, rows, np.array(rows))]
    assert schedules[0] == schedules[1] == schedules[2]
    assert jax.tree.leaves(schedules[0])[1].shape == (2, 2)


def test_tables_may_hold_traced_numbers():
    value = jax.jit(lambda boundary, scale: jo.piecewise_constant_schedule(1.0, [[boundary, scale]])(3))
    assert value(2.0, 0.25) == 0.25 and value(4.0, 0.25) == 1


def test_cycles_come_from_dicts_with_defaults():
    given = {"peak_value": 1.0, "decay_steps": 10, "warmup_steps": 2, "init_value": 0.0}
    cycles = jax.tree.leaves(jo.sgdr_schedule([given]))[0]
    assert cycles.tolist() == [[0.0, 1.0, 2.0, 10.0, 0.0, 1.0]]


def test_a_batch_is_what_has_more_dimensions_than_its_annotation():
    table = range_of("Table")
    assert numbers.is_batch(np.ones(2), Range()) and not numbers.is_batch(1.0, Range())
    assert numbers.is_batch(np.ones((3, 2, 2)), table) and not numbers.is_batch(np.ones((2, 2)), table)


def test_a_batch_of_optimizers_may_be_made_and_mapped():
    rates = jnp.array([0.1, 0.2])
    schedules = jo.warmup_cosine_decay_schedule(0.0, rates, 10, 100)
    axes = jax.tree.map(lambda x: 0 if np.ndim(x) else None, schedules)
    np.testing.assert_allclose(jax.vmap(lambda s: s(10), in_axes=(axes,))(schedules), rates, rtol=1e-6)
