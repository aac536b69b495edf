"""Outside jit: at a prompt and in a debugger, on shapes alone, and under strict promotion of dtypes."""

import jax
import jax.numpy as jnp
import pytest

import jaxopt_lite as jo
from tests.contract.table import NOT_COMPLEX, PENALTIES, SCHEDULES, TRANSFORMATIONS, at, problem


def later(state, steps: int):
    """The state as if so many steps more had been taken."""
    is_count = lambda x: x.dtype == jnp.int32 and x.shape == ()
    return jax.tree.map(lambda x: x + steps if is_count(x) else x, state)


def test_nothing_compiles_outside_jit_at_a_step_that_is_new():
    """JAX compiles `x ** 7` once for each exponent, so a bias correction cost a compilation a step."""
    compiled = []

    def listen(event, *_, fun_name="", **__):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(fun_name)

    states = {}
    for name, optimizer in TRANSFORMATIONS.items():
        params, grads = problem(name)
        state = optimizer.init(params)
        for t in range(4):  # with and without what runs every third step, and what runs at a start alone
            _, state = optimizer.update(at(t, grads), state, params)
        states[name] = later(state, 1)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for i, (name, optimizer) in enumerate(TRANSFORMATIONS.items()):
            params, grads = problem(name)
            state = states[name]
            for t in range(3):
                _, state = optimizer.update(at(t, grads), later(state, 1000 + 7 * i), params)
            assert not compiled, f"{name} compiled {compiled}"
    finally:
        jax.monitoring.clear_event_listeners()


BEGIN_WITH_PARAMS = (  # part of their state is a copy of the parameters
    *("ema_params", "lookahead", "tail_average", "latest_weights", "outer_nesterov", "schedule_free"),
    *("dog", "dowg", "prodigy", "mechanize"),
)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "complex64"])
def test_init_works_on_shapes_alone(dtype):
    """As Optax's does; where a state begins with the parameters themselves, it holds their shapes."""
    for name, optimizer in TRANSFORMATIONS.items():
        if dtype == "complex64" and name in NOT_COMPLEX:
            continue
        params = jax.tree.map(lambda p: p.astype(dtype), problem(name)[0])
        shapes = jax.eval_shape(lambda p=params: p)
        state, wanted = optimizer.init(shapes), jax.eval_shape(optimizer.init, params)
        assert jax.tree.structure(state) == jax.tree.structure(wanted), name
        for leaf, like in zip(jax.tree.leaves(state), jax.tree.leaves(wanted), strict=True):
            assert leaf.shape == like.shape and leaf.dtype == like.dtype, name
        if not any(word in repr(optimizer) for word in BEGIN_WITH_PARAMS):
            assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state)), name


def test_strict_promotion_of_dtypes_is_no_trouble():
    """Under `jax_numpy_dtype_promotion="strict"` JAX refuses a count times a number, and a complex times a real one."""
    for name, optimizer in TRANSFORMATIONS.items():
        params, grads = problem(name)
        with jax.numpy_dtype_promotion("strict"):
            for value in (optimizer, jo.arrays(optimizer)):
                state = jax.eval_shape(value.init, params)
                jax.eval_shape(value.update, at(0, grads), state, params)
            if name not in NOT_COMPLEX:
                both = jax.tree.map(lambda x: jax.lax.complex(x, x), (at(0, grads), params))
                jax.eval_shape(lambda g, p, o=optimizer: o.update(g, o.init(p), p), *both)
    for value in (SCHEDULES | PENALTIES).values():
        given = problem("")[0] if isinstance(value, jo.Penalty) else jnp.arange(5)
        with jax.numpy_dtype_promotion("strict"):
            jax.eval_shape(value, given)
            jax.eval_shape(lambda v, x: v(x), jo.arrays(value), given)


@pytest.mark.usefixtures("x64")
def test_strict_promotion_of_dtypes_is_no_trouble_where_x64_is_on():
    """There JAX computes in float64 with numbers of Python and counts, also beside float32 parameters."""
    for name, optimizer in TRANSFORMATIONS.items():
        params, grads = problem(name)
        for dtypes in (("float32", "float32"), ("float64", "float32"), ("float32", "float64")):
            p, g = (jax.tree.map(lambda x: x.astype(d), t) for d, t in zip(dtypes, (params, at(0, grads)), strict=True))  # noqa: B023
            with jax.numpy_dtype_promotion("strict"):
                jax.eval_shape(lambda g, p, o=optimizer: o.update(g, o.init(p), p), g, p)
    for name, schedule in SCHEDULES.items():
        with jax.numpy_dtype_promotion("strict"):
            assert jax.eval_shape(lambda s: s(3), jo.arrays(schedule)).shape == (), name


def test_init_works_on_the_shapes_of_numpy_arrays_of_float64():
    """Without x64 JAX's own arrays are float32, and so is the state; nothing warns of it."""
    shapes = {"w": jax.ShapeDtypeStruct((2, 3), "float64"), "b": jax.ShapeDtypeStruct((3,), "float64")}
    for optimizer in (jo.adamw(0.1), jo.novograd(0.1), jo.rmsprop(0.1), jo.chain(jo.trace(0.9), jo.ema_params(0.9))):
        floats = [x.dtype for x in jax.tree.leaves(optimizer.init(shapes)) if jnp.issubdtype(x.dtype, jnp.floating)]
        assert floats and set(floats) == {jnp.dtype("float32")}, optimizer
