"""Values as text: how each kind of argument is written, and what the reader reads and refuses.

That every public factory prints and reads back is in tests/contract; what is refused is in tests/test_errors.py.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_lite as jo
from tests.each import for_each


@jo.transformation
def rule(value: Any = None, *, scale: jo.Scalar = 1.0):
    return lambda params: (), lambda updates, state, params=None: (updates, state)


def flat(params):
    return params


NAMES = {"rule": rule, "flat": flat}

SPELLINGS = [
    (rule(), "rule()"),
    (rule(scale=2), "rule(scale=2.0)"),
    (rule(-1), "rule(value=-1)"),
    (rule(True), "rule(value=True)"),
    (rule("it's"), """rule(value="it's")"""),
    (rule((1,)), "rule(value=(1,))"),
    (rule(()), "rule(value=())"),
    (rule([1.0, [None]]), "rule(value=[1.0, [None]])"),
    (rule({"a": {-1: "b"}}), "rule(value={'a': {-1: 'b'}})"),
    (rule(flat), "rule(value=flat)"),
    (rule(np.array([0.1, 0.2])), "rule(value=ndarray([0.1, 0.2], 'float64'))"),
    (rule(jnp.array([0.1, 2])), "rule(value=array([0.1, 2.0], 'float32'))"),
    (rule(jnp.array([[1, 2]])), "rule(value=array([[1, 2]], 'int32'))"),
    (rule(jnp.array([jnp.nan, -jnp.inf])), "rule(value=array([nan, -inf], 'float32'))"),
    (jo.sgd(jnp.bfloat16(0.5)), "sgd(array(0.5, 'bfloat16'))"),
    (jo.sgd(1e-30), "sgd(1e-30)"),
    (jo.sgd(0.1, momentum=0.9, nesterov=True), "sgd(0.1, momentum=0.9, nesterov=True)"),
    (jo.sgd(flat), "sgd(flat)"),
    (jo.scale_by_learning_rate(0.1, flip_sign=False), "scale_by_learning_rate(0.1, flip_sign=False)"),
    (jo.adam(jo.linear_schedule(1, 0, 10)), "adam(linear_schedule(1.0, 0.0, 10.0))"),
    (jo.chain(jo.clip(1), jo.chain(jo.sgd(2))), "chain(clip(1.0), chain(sgd(2.0)))"),
    (jo.sgdr_schedule([[0, 1, 2, 9, 0, 1]]), "sgdr_schedule([[0.0, 1.0, 2.0, 9.0, 0.0, 1.0]])"),
    (
        jo.join_schedules([jo.constant_schedule(1), jo.constant_schedule(2)], [3]),
        "join_schedules((constant_schedule(1.0), constant_schedule(2.0)), [3.0])",
    ),
    (
        jo.partition({"a": jo.sgd(1)}, jo.by_path({"*/b": "a"}, default="a")),
        "partition({'a': sgd(1.0)}, by_path({'*/b': 'a'}, default='a'))",
    ),
    (jo.adam(0.1, mu_dtype=jnp.bfloat16), "adam(0.1, mu_dtype='bfloat16')"),
    (jo.lift(optax.contrib.muon)(0.1), "lift(optax.contrib.muon)(0.1)"),
    (jo.lift(optax.sgd, traced=["momentum"])(0.1, 0), "lift(optax.sgd, traced=['momentum'])(0.1, momentum=0.0)"),
]


@for_each(SPELLINGS)
def test_each_kind_of_argument_has_a_spelling(row):
    value, text = row
    assert jo.spell(value) == repr(value) == text
    if not isinstance(value.arguments.get("value"), np.ndarray):  # a list reads back as a list
        assert jo.parse(text, names=NAMES) == value


def test_numbers_read_back_to_the_last_bit():
    for number in (0.1, 1 / 3, 1e-300, 2**0.5, float(np.float32(0.1))):
        assert jo.parse(repr(jo.scale(number))).arguments["step_size"] == number
    third = jnp.float32(1 / 3)
    assert jo.parse(repr(jo.scale(third))).arguments["step_size"] == third


def test_the_saved_form_outlives_a_change_of_defaults():
    text = jo.spell(jo.chain(jo.sgd(0.1)), defaults=True)
    assert text == "chain(sgd(0.1, momentum=None, nesterov=False, accumulator_dtype=None))"


def test_a_number_equal_to_its_default_in_another_type_is_written():
    # 1 is a static argument here, and another program than True.
    assert repr(rule(None)) == "rule()" and repr(rule(0)) == "rule(value=0)"
    assert repr(jo.adam(0.1, b1=jnp.float32(0.9))) == "adam(0.1, b1=array(0.9, 'float32'))"


def test_traced_numbers_print_their_type_and_do_not_read_back():
    printed = []
    jax.jit(lambda x: printed.append(repr(jo.sgd(x))) or x)(jnp.ones(()))
    assert printed == ["sgd(<traced float32[]>)"]
    with pytest.raises(ValueError, match="cannot read"):
        jo.parse(printed[0])


def test_the_reader_takes_any_layout_of_python():
    assert jo.parse("\n chain(  # clipped\n  clip( max_delta = 1_0.5, ), )\n") == jo.chain(jo.clip(10.5))


def test_names_that_are_given_come_before_the_packages():
    # There is no registry: a user's `sgd` is the user's only where it is given.
    assert jo.parse("sgd(scale=2.0)", names={"sgd": rule}) == rule(scale=2.0)
    assert jo.parse("sgd(2.0)") == jo.sgd(2.0)
    assert jo.parse("array(scale=3.0)", names={"array": rule}) == rule(scale=3.0)


def test_the_reader_evaluates_nothing():
    ran = []
    for text in ("rule(1 if f() else 2)", "[f() for _ in (1,)]", "chain(*f())", "sgd(**f())", "f().x", "rule(f()[0])"):
        with pytest.raises(ValueError, match="cannot read"):
            jo.parse(text, names={"f": lambda: ran.append(1), "rule": rule})
    assert not ran


def test_private_names_and_attributes_of_factories_are_out_of_reach():
    for text in ("adam.__wrapped__(1e-3)", "adam.spec.function(1e-3)", "core.text.ast.parse('1')", "jax.numpy.ones(3)"):
        with pytest.raises(ValueError, match="there is no"):
            jo.parse(text)


def test_optax_functions_may_be_arguments():
    text = "stateless(optax.tree.zeros_like)"
    with pytest.raises(ValueError, match="no such name"):
        jo.parse(text)
    assert jo.parse("stateless(optax.global_norm)").arguments["f"] is optax.global_norm
