"""Functions known by their text: equal for equal computations, different for different ones, and what they captured."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_lite.core.traced import traced

X = jnp.ones(3)


def text(function, *arguments):
    return traced(function, *(arguments or (X,)))[0]


def test_equal_texts_are_equal_and_others_are_not():
    make = lambda scale: lambda x: jnp.sum(scale * x)
    assert text(make(2.0)) == text(make(2.0)) and hash(text(make(2.0))) == hash(text(make(2.0)))
    assert text(make(2.0)) != text(make(3.0))
    assert text(make(jnp.ones(3))) == text(make(2 * jnp.ones(3)))  # captured arrays are no part of the text
    assert text(make(np.ones(3))) != text(make(np.ones(3, np.int32)))
    assert text(lambda x, y: x + y, X, 1.0) != text(lambda x, y: x + y, X, jnp.float32(1.0))  # a weak type
    assert text(lambda t: t["a"], {"a": X}) != text(lambda t: t["b"], {"b": X})


def test_custom_derivatives_are_part_of_the_text():
    def make(factor, rule):
        if rule == "jvp":
            f = jax.custom_jvp(lambda x: x**2)
            f.defjvp(lambda primals, tangents: (primals[0] ** 2, factor * tangents[0]))
        else:
            f = jax.custom_vjp(lambda x: x**2)
            f.defvjp(lambda x: (x**2, None), lambda _, g: (factor * g,))
        return lambda x: jnp.sum(f(x))

    for rule in ("jvp", "vjp"):
        assert text(make(2.0, rule)) == text(make(2.0, rule)) != text(make(3.0, rule))
    assert text(lambda x: jax.nn.relu(x)) == text(lambda x: jax.nn.relu(x))


def test_callbacks_are_known_by_their_objects():
    make = lambda: lambda x: jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct(x.shape, x.dtype), x)
    assert text(make()) != text(make())


def test_a_known_function_is_not_traced_again_and_what_it_captured_is_copied():
    traces, data = [], np.ones(3)

    def f(x):
        traces.append(1)
        return jnp.sum(x * data)

    function, captured = traced(f, X)
    again = traced(f, 2 * X)
    assert len(traces) == 1 and again[0] is function
    data[:] = 5
    assert float(function(captured, X)) == 3.0
    traced(f, jnp.ones(4, jnp.float32)[:3].astype(jnp.float16))
    assert len(traces) == 2


def test_tracers_that_it_captured_become_arguments():
    def outer(c):
        function, captured = traced(lambda x: jnp.sum(x * c), X)
        return function(captured, X)

    np.testing.assert_array_equal(jax.grad(outer)(X), X)
    np.testing.assert_array_equal(jax.vmap(outer)(jnp.stack([X, 2 * X])), [3, 6])


def test_tiny_functions_have_small_arrays_and_no_loops():
    inner = jax.jit(lambda x: jnp.sum(jnp.outer(x, x)))  # 25 elements for 5
    loop = lambda x: jax.lax.fori_loop(0, 3, lambda i, total: total + x[0], 0.0)
    table = jnp.arange(17.0)
    capturing = lambda x: jnp.sum(x) + table[0]
    either = lambda x: jax.lax.cond(x[0] > 0, lambda: jnp.sum(jnp.outer(x, x)), lambda: x[0])
    for function, size, tiny in (
        (lambda x: jnp.sum(x**2), 16, True),
        (lambda x: jnp.sum(x**2), 17, False),
        (inner, 4, True),
        (inner, 5, False),
        (loop, 2, False),
        (capturing, 2, False),
        (either, 4, True),
        (either, 5, False),
    ):
        assert traced(function, jnp.ones(size))[0].is_tiny is tiny, (function, size)
