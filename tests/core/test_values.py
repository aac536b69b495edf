"""The remembered call: what its annotations mean, when the author's function runs, and that nothing leaks."""

import threading
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_lite as jo
from jaxopt_lite.core.values import Value


def nothing():
    return lambda params: (), lambda updates, state, params=None: (updates, state)


@jo.transformation
def everything(
    number: jo.Scalar,
    rate: jo.LearningRate,
    maybe: jo.Decay | None = None,
    inner: jo.GradientTransformation | None = None,
    many: Mapping[str, jo.GradientTransformation] | None = None,
    row: Sequence[jo.Schedule] = (),
    flag: bool = False,
    form: Literal["a", "b"] = "a",
    dtype: jo.Dtype | None = None,
    key: jo.Key = 0,
    anything: Any = None,
    plain=1,
):
    return nothing()


FULL = everything(
    1,
    jo.constant_schedule(2),
    maybe=0.25,
    inner=jo.clip(4),
    many={"x": jo.sgd(5), "y": jo.sgd(6)},
    row=[jo.constant_schedule(7), jo.constant_schedule(8)],
    flag=True,
    form="b",
    dtype=jnp.bfloat16,
    key=jax.random.key(9),
    anything={"a": [1, 2]},
    plain=3,
)


def test_the_annotation_alone_says_what_is_a_leaf():
    *leaves, key = jax.tree.leaves(FULL)
    assert leaves == [1, 2, 0.25, 4, 5, 6, 7, 8] and all(type(x) is float for x in leaves)
    assert jax.random.key_data(key).tolist() == [0, 9]


def test_none_and_static_arguments_are_no_leaves():
    assert jax.tree.leaves(everything(1, 2)) == [1, 2]
    assert everything(1, 2).arguments["key"] == 0


def test_static_arguments_have_one_spelling():
    arguments = FULL.arguments
    assert (arguments["dtype"], arguments["flag"], arguments["form"]) == ("bfloat16", True, "b")
    assert everything(1, 2, flag=np.True_, key=np.int64(3)) == everything(1, 2, flag=True, key=3)
    assert everything(1, 2, dtype=float).arguments["dtype"] == "float32"  # what JAX makes of it without x64
    assert everything(1, 2, plain=np.float32(0.5)) == everything(1, 2, plain=0.5)


def test_none_means_none_only_where_it_is_allowed():
    assert everything(1, 2, maybe=None).arguments["maybe"] is None
    with pytest.raises(TypeError, match="number must be a number, got None"):
        everything(None, 2)


def test_arguments_are_in_the_order_of_the_signature_with_defaults():
    assert list(everything(rate=2, number=1).arguments)[:3] == ["number", "rate", "maybe"]
    assert jo.adam(1e-3).arguments["b2"] == 0.999


def test_several_numbers_and_keywords_are_leaves_too():
    @jo.transformation
    def weighted(*weights: jo.Scalar, **named: jo.Scalar):
        def update(updates, state, params=None):
            return jax.tree.map(lambda g: sum(weights) * named["a"] * g, updates), state

        return lambda params: (), update

    value = weighted(1, 2, a=3)
    assert jax.tree.leaves(value) == [1, 2, 3] and repr(value) == "weighted(1.0, 2.0, a=3.0)"
    assert value.update(jnp.ones(()), ())[0] == 9


def test_plain_pairs_and_functions_are_leafless_and_go_by_identity():
    pair, rate = optax.sgd(0.1), lambda t: 0.1 * t
    assert jax.tree.leaves((jo.chain(pair), jo.sgd(rate))) == []
    assert jo.chain(pair) == jo.chain(pair) != jo.chain(optax.sgd(0.1))
    assert jo.sgd(rate) == jo.sgd(rate) != jo.sgd(lambda t: 0.1 * t)


def test_a_key_of_the_old_form_is_a_leaf():
    assert jax.tree.leaves(jo.add_noise(0.1, 0.5, jax.random.PRNGKey(3)))[2].shape == (2,)


# --- When the author's function runs --------------------------------------------------------------


def counted():
    calls = []

    @jo.transformation
    def rule(rate: jo.NonNegative):
        calls.append(rate)
        return nothing()

    return rule, calls


def test_the_function_runs_once_for_a_value_of_plain_numbers():
    rule, calls = counted()
    value = rule(1.0)
    for _ in range(3):
        value.update(jnp.ones(2), value.init(jnp.ones(2)))
    assert calls == [1.0]


def test_the_function_runs_anew_for_traced_numbers():
    # What it closes over would keep the tracers of the first trace alive, and leak them into the second.
    rule, calls = counted()

    @jax.jit
    def f(value, x):
        return value.update(x, value.init(x))[0], value.update(x, ())[0]

    f(rule(1.0), jnp.ones(2))
    f(rule(2.0), jnp.ones(2))
    assert calls[0] == 1.0 and calls[-1] == 2.0
    assert all(isinstance(c, jax.core.Tracer) for c in calls[1:-1]) and len(calls) > 2


def test_what_is_built_of_tracers_inside_a_loop_may_be_used_outside_of_it():
    def f(steps):
        schedule = jo.linear_onecycle_schedule(steps, 1.0)  # it stacks its steps into an array when it is built
        _, inside = jax.lax.scan(lambda t, _: (t + 1, schedule(t)), 0, length=2)
        return inside, schedule(1)

    inside, outside = jax.jit(f)(10.0)
    assert inside[1] == outside


def test_a_batch_is_not_built_before_it_is_mapped():
    rule, calls = counted()
    rule(jnp.ones(3))
    assert calls == []


def test_what_is_built_inside_a_trace_of_plain_numbers_may_be_used_outside():
    @jo.schedule
    def table(value: jo.Scalar):
        values = jnp.arange(3) * value  # an array that the function makes when it is built
        return lambda t: values[2] + 0 * t

    made = []
    jax.jit(lambda x: made.append(table(2.0)) or made[0](x))(1.0)
    assert made[0](1.0) == 4


def test_traced_numbers_in_a_closure_do_not_outlive_their_trace():
    made = []

    @jax.jit
    def f(rate):
        made.append(jo.sgd(jo.linear_schedule(rate, 0.0, 10)))
        return made[-1].update(rate, made[-1].init(rate))[0]

    f(1.0)
    assert jo.sgd(jo.linear_schedule(1.0, 0.0, 10)) != made[0]  # compared by identity, which does not raise
    assert jax.jit(lambda x: x + 1)(1.0) == 2


def test_one_value_serves_several_threads():
    # Whether a value is the outermost one is known for each thread.
    optimizer, faults = jo.chain(jo.clip_by_global_norm(1.0), jo.adam(0.1)), []

    def work():
        for _ in range(5):
            try:
                optimizer.init(jnp.ones(2, int))
                faults.append("silent")
            except TypeError:
                pass
            optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    [t.start() for t in threads], [t.join() for t in threads]
    assert not faults


# --- A value does not change ----------------------------------------------------------------------


def test_arguments_can_only_be_read():
    assert isinstance(FULL.arguments, types.MappingProxyType)
    with pytest.raises(AttributeError, match="does not change"):
        FULL.number = 3
    with pytest.raises(AttributeError, match="does not change"):
        jo.constant_schedule(1.0).value = 2.0


def test_values_are_not_made_by_their_class():
    for cls in (Value, jo.Schedule, jo.GradientTransformation):
        with pytest.raises(TypeError, match="decorate a factory"):
            cls()


def test_decorators_keep_name_signature_and_documentation():
    assert jo.adam.__name__ == "adam" and "Kingma" in jo.adam.__doc__
    assert list(jo.adam.spec.signature.parameters)[:2] == ["learning_rate", "b1"]
    assert jo.adam.__wrapped__ is jo.adam.spec.function


def test_a_recipe_knows_its_inner_chain_and_a_rule_has_none():
    inner = jo.adamw(1e-3, weight_decay=0.5).inner
    assert inner == jo.chain(jo.scale_by_adam(), jo.add_decayed_weights(0.5), jo.scale_by_learning_rate(1e-3))
    assert jo.scale_by_adam().inner is None and jo.chain(jo.adam(0.1)).inner is None
