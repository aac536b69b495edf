"""The remembered call: when the author's function runs, that nothing leaks, and that a value does not change."""

import threading
import types

import jax
import jax.numpy as jnp
import pytest

import jaxopt_lite as jo
from jaxopt_lite.core.values import Value


def nothing():
    return lambda params: (), lambda updates, state, params=None: (updates, state)


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
    assert isinstance(jo.adam(0.1).arguments, types.MappingProxyType)
    with pytest.raises(AttributeError, match="does not change"):
        jo.adam(0.1).b1 = 0.5
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
