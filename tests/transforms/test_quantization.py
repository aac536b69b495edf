"""State in 8 bits: the codes of bitsandbytes, which slots have them, and what they cost."""

import pickle
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_lite as jo
from jaxopt_lite.transforms.quantization import code_values, quantized, restored
from tests.quick import quick_jit

PEER = np.load(Path(__file__).with_name("codes.npz"))  # made by make_codes.py
BLOCK = 256

# The two forms under jit, for arrays of 6000 numbers.
quantize = jax.jit(lambda x: quantized(x, BLOCK))
restore = jax.jit(restored)


def flat(blocks):
    return np.asarray(blocks.codes).reshape(-1)[: blocks.dims[0]]


def test_the_codes_are_those_of_bitsandbytes():
    np.testing.assert_array_equal(code_values(True), PEER["values_signed"])
    np.testing.assert_array_equal(code_values(False), PEER["values_unsigned"])
    signed, unsigned = quantize(PEER["x"]), quantize(np.abs(PEER["x"]))
    np.testing.assert_array_equal(flat(signed), PEER["codes_signed"])
    np.testing.assert_array_equal(flat(unsigned), PEER["codes_unsigned"])
    np.testing.assert_array_equal(signed.scale, -PEER["scale"])  # negative: it has negative numbers
    np.testing.assert_array_equal(unsigned.scale, PEER["scale"])
    wanted = PEER["values_signed"][PEER["codes_signed"]] * np.repeat(PEER["scale"], BLOCK)[:6000]
    np.testing.assert_array_equal(restore(signed), wanted)


@pytest.mark.parametrize("signed", [False, True])
def test_a_number_has_the_nearest_code(signed):
    """Also next to each value and next to each bound between two; a number on a bound takes the lower code."""
    values = code_values(signed)
    bounds = (values[:-1] + values[1:]) / np.float32(2)
    at = np.concatenate([values, bounds, 10.0 ** np.arange(-9, 1), np.linspace(-1, 1, 3001)]).astype(np.float32)
    x = np.unique(np.concatenate([np.nextafter(at, np.float32(-2)), at, np.nextafter(at, np.float32(2))]))
    x = x[(np.abs(x) <= 1) & ((x >= 0) | signed)]
    rows = [np.append(part, [-1, 1] if signed else [1]) for part in np.array_split(x, -(-len(x) // 250))]
    x = np.array([np.pad(row, (0, BLOCK - len(row))) for row in rows], np.float32)  # each row is a block of scale 1
    np.testing.assert_array_equal(jax.jit(lambda x: quantized(x, BLOCK))(x).codes, np.searchsorted(bounds, x))


def test_what_is_restored_is_near_and_stays():
    """Within the largest decade at most half a part away, never another sign; quantised again it is the same."""
    x = PEER["x"][:BLOCK]
    blocks = quantize(PEER["x"])
    found = np.asarray(restore(blocks))[:BLOCK]
    largest = np.abs(x).max()
    assert (np.abs(found - x) <= largest * 0.9 / 64 / 2 * 1.2).all() and (found * x >= 0).all()
    big = np.abs(x) > 0.1 * largest
    np.testing.assert_allclose(found[big], x[big], 0.06)
    np.testing.assert_array_equal(flat(quantize(restore(blocks))), flat(blocks))


def test_zeros_tiny_numbers_and_what_is_not_finite():
    assert (restore(quantize(np.zeros(6000, np.float32))) == 0).all()
    x = np.full(6000, 1e-38, np.float32)  # smaller than the least normal number: flushed to zero or kept, never NaN
    assert np.isfinite(restore(quantize(x))).all()
    x[:] = 1.0
    x[300] = np.nan
    found = np.asarray(restore(quantize(x)))
    assert not np.isfinite(found[256:512]).any() and (np.delete(found, slice(256, 512)) == 1).all()


LARGE = {"w": jnp.ones((64, 64)), "b": jnp.ones(64)}


def test_moments_are_quantised_and_nothing_else():
    """Not small leaves, counts, or what begins as a copy of the parameters, wherever it stands."""
    inner = jo.chain(jo.adamw(0.1), jo.ema_params(0.9), jo.trace(0.9))
    optimizer = jo.quantize_state(jo.lookahead(inner, 2, 0.5))
    state = optimizer.init(LARGE).inner_state
    kinds = jax.tree.map(lambda x: type(x).__name__, state, is_leaf=lambda x: hasattr(x, "codes"))
    (adam, *_), average, momentum = kinds.inner_state
    for slot in (adam.mu, adam.nu, momentum.trace):
        assert slot == {"w": "Blocks", "b": "ArrayImpl"}
    assert set(jax.tree.leaves((average, kinds.slow, adam.count))) == {"ArrayImpl"}
    assert jo.averaged_params(optimizer.init(LARGE))["w"].shape == (64, 64)
    blocks = state.inner_state[0][0].mu["w"]
    assert blocks.codes.shape == (16, 256) and blocks.codes.dtype == jnp.uint8 and blocks.scale.dtype == jnp.float32
    layout = jo.state_layout(optimizer, LARGE).inner_state.inner_state[0][0].mu["w"]
    assert layout.codes.axes == ("flat", None) and layout.scale.axes == ("flat",) and layout.codes.sure


def test_bytes_of_state():
    """For a parameter of a large matrix: moments of 8 bits, and a scale of 32 for 256 of them."""
    matrix = jax.ShapeDtypeStruct((1024, 1024), jnp.float32)
    for optimizer, wanted in (
        (jo.adamw(1e-3), 8.0),
        (jo.quantize_state(jo.adamw(1e-3)), 2.03125),
        (jo.quantize_state(jo.lion(1e-3)), 1.015625),
        (jo.quantize_state(jo.lift(optax.adam, acts_on="coordinate")(1e-3)), 2.03125),
        (jo.quantize_state(jo.adamw(1e-3), block_size=64), 2.125),
        (jo.quantize_state(jo.adamw(1e-3), min_size=2**21), 8.0),
        (jo.quantize_state(jo.schedule_free(jo.sgd(0.1), 0.1)), 4.0),
    ):
        for params in ({"w": matrix}, matrix):
            assert jo.state_bytes(optimizer, params) == wanted * 2**20, optimizer
    small = [jax.ShapeDtypeStruct((16, 16), jnp.float32)] * 16
    assert jo.state_bytes(jo.quantize_state(jo.adam(0.1)), small) == 8 * 4096
    assert jo.state_bytes(jo.quantize_state(jo.stack_leaves(jo.adam(0.1))), small) == 2 * (4096 + 16 * 4)


def test_what_may_be_quantised():
    for inner, why in (
        (jo.lamb(0.1), "scale_by_trust_ratio, which acts on 'leaf'"),
        (jo.lift(optax.adam)(0.1), "lift"),
    ):
        with pytest.raises(ValueError, match="quantize_state: the inner rule contains") as error:
            jo.quantize_state(jo.chain(inner))
        assert why in str(error.value) or why == "lift"
    for wrong in ({"bits": 4}, {"block_size": 0}, {"min_size": 0.5}):
        with pytest.raises(ValueError, match=f"quantize_state: {next(iter(wrong))} must be"):
            jo.quantize_state(jo.adam(0.1), **wrong)
    assert jo.quantize_state(jo.adam(0.1)).acts_on == "leaf"
    with pytest.raises(ValueError, match="quantize_state"):
        jo.stack_leaves(jo.quantize_state(jo.adam(0.1)))
    optimizer = jo.quantize_state(jo.sgd(jo.linear_schedule(1.0, 0.0, 4), 0.9))
    assert float(jo.hyperparameters(optimizer, optimizer.init(LARGE))["quantize_state.sgd.learning_rate"]) == 1.0


_random = np.random.default_rng(0)
INPUTS = jnp.asarray(_random.normal(size=(128, 64)), jnp.float32)
TARGETS = jnp.tanh(INPUTS @ jnp.asarray(_random.normal(size=(64, 64)) / 8, jnp.float32))


def loss(params):
    return jnp.mean((jnp.tanh(INPUTS @ params["w"] + params["b"][None]) - TARGETS) ** 2)


def trained(optimizer, params, state, steps):
    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return (jo.apply_updates(params, updates), state), loss(params)

    (params, state), losses = jax.lax.scan(step, (params, state), length=steps)
    return params, state, losses


def test_training_is_that_of_float32_nearly():
    """Three learning rates at once; saved after half of the steps, and given away to the next call."""
    params = {"w": jnp.zeros((64, 64)), "b": jnp.zeros(64)}
    rates = jnp.array([1e-3, 3e-3, 1e-2])
    program = quick_jit(
        jax.vmap(lambda rate, p, s: trained(jo.quantize_state(jo.adamw(rate)), p, s, 60)), donate_argnums=(1, 2)
    )
    start = jax.vmap(lambda rate: (params, jo.quantize_state(jo.adamw(rate)).init(params)))(rates)
    saved = pickle.dumps(half := program(rates, *start)[:2])
    losses = np.asarray(program(rates, *half)[2])
    np.testing.assert_array_equal(program(rates, *pickle.loads(saved))[2], losses)
    wide = jax.vmap(lambda rate: trained(jo.adamw(rate), params, jo.adamw(rate).init(params), 120)[2])(rates)
    assert (np.asarray(wide)[:, -1] < 0.6 * np.asarray(wide)[:, 0]).all()
    np.testing.assert_allclose(losses[:, -1], np.asarray(wide)[:, -1], 0.1)
    assert not np.array_equal(losses[:, -1], np.asarray(wide)[:, -1])


def test_a_step_starts_from_what_the_codes_stand_for():
    """One update by hand: restored, updated in float32, quantised."""
    optimizer = jo.quantize_state(jo.trace(0.9))
    grads = {"w": jnp.asarray(_random.normal(size=(64, 64)), jnp.float32), "b": jnp.ones(64)}
    state = optimizer.init(LARGE)
    _, state = optimizer.update(grads, state, LARGE)
    kept = restored(state.inner_state.trace["w"])
    assert 0 < np.abs(kept - grads["w"]).max() < 0.1
    updates, state = optimizer.update(grads, state, LARGE)
    np.testing.assert_allclose(updates["w"], grads["w"] + 0.9 * kept, 1e-5, 1e-6)
    np.testing.assert_array_equal(state.inner_state.trace["w"].codes, quantized(updates["w"], BLOCK).codes)
