"""16-bit weights: small steps are not lost, on average, by what is kept, or bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_lite as jo
from jaxopt_lite.transforms.rounding import _joined, _rounded, _split, random_bits
from tests.quick import quick_jit

_random = np.random.default_rng(0)
NUMBERS = np.concatenate(
    [
        _random.normal(size=4000) * 10.0 ** _random.uniform(-9, 4, 4000),
        [0.0, -0.0, 1.0, 1.00390625, 65504.0, -65504.0, 65519.0, 6e-8, 3e-8, 2.0**-14, 1e-40, np.inf, -np.inf, np.nan],
    ]
).astype(np.float32)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_rounding_to_nearest_is_a_cast(dtype):
    """Compiled too, where XLA leaves out a cast and its reverse; and with random bits it is one of the neighbours."""
    wanted = NUMBERS.astype(dtype).astype(np.float32)
    normal = np.where(np.abs(NUMBERS) < 1e-38, 0, NUMBERS)  # XLA on CPU flushes what is smaller to zero
    found = np.asarray(jax.jit(_rounded, static_argnums=1)(normal, dtype))
    large = np.abs(wanted) == np.inf  # rounded beyond the largest number, which the cast at the end makes infinite
    np.testing.assert_array_equal(found.astype(dtype)[large], wanted[large])
    near = np.where(np.abs(NUMBERS) < 1e-38, 0, wanted)
    np.testing.assert_array_equal(found[~large], near[~large])
    draws = jax.jit(
        lambda x: jax.vmap(lambda t: _rounded(x, dtype, random_bits(jax.random.key(1), t, 0, x.shape)))(jnp.arange(64))
    )(normal)
    draws = np.asarray(draws)[:, :4000]
    x, grid = normal[:4000], draws.astype(dtype).astype(np.float32)
    np.testing.assert_array_equal(grid, draws)
    ulp = np.spacing(np.maximum(np.abs(x), float(jnp.finfo(dtype).tiny))) * 2.0 ** (23 - jnp.finfo(dtype).nmant)
    assert (np.abs(draws - x) < ulp * (1 + 1e-3)).all()
    assert all(len(set(column)) <= 2 for column in draws.T[:500])
    error = ((draws - x) / ulp).mean()  # of 256,000 independent roundings, each of a deviation of at most 1/2
    assert abs(error) < 4 * 0.41 / 506, error


def test_random_bits_are_uniform_and_apart():
    """Counts of each of 256 values in every byte; neighbours, steps and leaves have nothing to do with each other."""
    bits = jax.jit(
        lambda key: jnp.stack([random_bits(key, t, leaf, (64, 512)) for t, leaf in ((0, 0), (1, 0), (0, 1), (1, 1))])
    )
    one, other = (np.asarray(bits(jax.random.key(seed))).reshape(4, -1) for seed in (0, 1))
    for row in (*one, *other):
        for byte in row.view(np.uint8).reshape(-1, 4).T:
            counts = np.bincount(byte, minlength=256)
            statistic = ((counts - 128) ** 2 / 128).sum()
            assert 150 < statistic < 380, statistic  # chi-squared of 255 degrees of freedom: 255 ± 23
    u = one / 2.0**32 - 0.5
    pairs = [(u[0, 1:], u[0, :-1]), (u[0, 512:], u[0, :-512]), (u[0], u[1]), (u[0], u[2]), (u[1], u[2])]
    pairs += [(u[0], other[0] / 2.0**32 - 0.5), (u[0, 1:], u[1, :-1])]
    for a, b in pairs:
        assert abs((a * b).mean() * 12) < 4.5 / np.sqrt(len(a))
    assert len(np.unique(one)) > 0.999 * one.size


PARAMS = {
    "w": jnp.asarray(_random.normal(size=(40, 50)), jnp.bfloat16),
    "norm": jnp.ones(50),
    "half": jnp.asarray(_random.normal(size=30), jnp.float16),
}
WIDE = jax.tree.map(lambda p: p.astype(jnp.float32), PARAMS)
STEPS = 100


def gradient(t, params):
    """Small at each step, with a direction that stays."""
    noise = lambda p: jax.random.normal(jax.random.fold_in(jax.random.key(1), t), p.shape)
    return jax.tree.map(lambda p: (0.3 + 0.1 * noise(p)).astype(p.dtype), params)


def run(optimizer, params, like=PARAMS, apply_updates=jo.apply_updates):
    def step(carry, t):
        params, state = carry
        updates, state = optimizer.update(gradient(t, like), state, params)
        return (apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(STEPS))[0]


INNER = jo.chain(jo.clip_by_global_norm(100.0), jo.adamw(1e-4, weight_decay=1e-2))


def test_steps_below_the_resolution_are_not_lost():
    """Plain 16-bit weights stand still; rounded at random they follow float32 on average, compensated each does."""
    rules = {
        "plain": INNER,
        "stochastic": jo.stochastic_rounding(INNER, key=3),
        "kahan": jo.kahan_summation(INNER),
        "master": jo.master_weights(INNER),
    }
    ends = quick_jit(lambda: {name: run(rule, PARAMS) for name, rule in rules.items()})()
    params, states = ({name: end[i] for name, end in ends.items()} for i in (0, 1))
    exact, _ = quick_jit(lambda: run(INNER, WIDE, WIDE, optax.apply_updates))()
    assert abs(float((exact["w"] - WIDE["w"]).mean()) + 0.01) < 1e-3
    error = {
        name: {key: np.asarray(p.astype(jnp.float32) - exact[key]) for key, p in tree.items()}
        for name, tree in params.items()
    }
    # Gradients are rounded to each parameter's dtype, so all but float32 leaves see the same numbers nearly.
    assert error["plain"]["w"].mean() > 5e-3, "no step was lost"
    ulp = np.spacing(np.abs(np.asarray(exact["w"]))) * 2.0**16
    assert abs(error["stochastic"]["w"].mean()) < 4 * (ulp.mean() / np.sqrt(2000)) + 2e-4
    assert np.abs(error["stochastic"]["w"]).max() > 1e-3
    for name in ("kahan", "master"):
        assert (np.abs(error[name]["w"]) <= 0.51 * ulp + 2e-4).all(), name
        assert abs(error[name]["half"].mean()) < 1e-4, name
    for name in ("stochastic", "kahan", "master"):  # a float32 leaf is updated as without the wrapper
        np.testing.assert_array_equal(params[name]["norm"], params["plain"]["norm"])
    for name in ("kahan", "master"):
        rest = states[name][0]
        assert isinstance(rest["norm"], optax.MaskedNode)
        assert rest["w"].dtype == {"kahan": jnp.bfloat16, "master": jnp.int16}[name]


def test_master_weights_are_those_of_float32_training_bit_for_bit():
    """With the gradients of the 16-bit weights, by Optax's `apply_updates` too."""
    params = {"w": PARAMS["w"][0, :30], "half": PARAMS["half"]}
    exact = jax.tree.map(lambda p: p.astype(jnp.float32), params)
    inner = jo.chain(jo.trace(0.9), jo.add_decayed_weights(1e-2), jo.scale(-1e-2))
    optimizer = jo.master_weights(inner)
    state, exact_state = optimizer.init(params), inner.init(exact)
    for t in range(20):  # outside jit: of a product and a sum XLA may make one operation in one place, not in another
        apply_updates = (jo.apply_updates, optax.apply_updates)[t % 2]
        grads = jax.tree.map(lambda p: jnp.asarray(0.3 + 0.1 * _random.normal(size=30), p.dtype), params)
        updates, state = optimizer.update(grads, state, params)
        params = apply_updates(params, updates)
        updates, exact_state = inner.update(grads, exact_state, exact)
        exact = apply_updates(exact, updates)
    np.testing.assert_array_equal(_joined(params["w"].astype(jnp.float32), state.rest["w"]), exact["w"])
    np.testing.assert_array_equal(state.rest["half"], exact["half"])
    np.testing.assert_array_equal(params["half"], exact["half"].astype(jnp.float16))
    assert (np.abs(params["w"].astype(jnp.float32) - exact["w"]) <= np.abs(exact["w"]) / 256).all()
    assert any(state.rest["w"] != 0) and (exact["w"] != PARAMS["w"][0, :30]).all()
    joined = np.asarray(jax.jit(lambda w: _joined(*_split(w)))(NUMBERS))
    normal = ~(np.abs(NUMBERS) < 1e-38)
    np.testing.assert_array_equal(joined[normal], NUMBERS[normal])


def test_a_wrapper_returns_differences_of_16_bit_numbers():
    """In float32, also from within a chain; and the bits are those of the seed, the step and the place alone."""
    params = {"w": PARAMS["w"]}
    grads = jax.tree.map(lambda p: jnp.ones_like(p), params)
    optimizer = jo.chain(jo.clip(0.5), jo.stochastic_rounding(jo.sgd(1e-3), key=3))
    state = optimizer.init(params)
    updates, after = optimizer.update(grads, state, params)
    assert updates["w"].dtype == jnp.float32
    new = params["w"].astype(jnp.float32) + updates["w"]
    np.testing.assert_array_equal(new.astype(jnp.bfloat16).astype(jnp.float32), new)
    again = jax.jit(optimizer.update)(grads, state, params)[0]
    later = optimizer.update(grads, after, params)[0]
    other = jo.stochastic_rounding(jo.sgd(5e-4), key=4)
    other = other.update(grads, other.init(params), params)[0]
    np.testing.assert_array_equal(again["w"], updates["w"])
    assert (later["w"] != updates["w"]).any() and (other["w"] != updates["w"]).any()
    # A rule without a wrapper still returns the parameters' dtype.
    assert jo.sgd(1e-3).update(grads, jo.sgd(1e-3).init(params), params)[0]["w"].dtype == jnp.bfloat16


def test_a_hypergradient_passes_the_rounding():
    """d p'/d rate is that of the step before it was rounded."""

    params = {"w": PARAMS["w"][0], "half": PARAMS["half"]}

    def moved(rate):
        rules = [wrap(jo.sgd(rate)) for wrap in (jo.stochastic_rounding, jo.kahan_summation, jo.master_weights)]
        updates = [rule.update(jax.tree.map(jnp.ones_like, params), rule.init(params), params)[0] for rule in rules]
        return jnp.stack([sum(jnp.sum(u) for u in jax.tree.leaves(tree)) for tree in updates])

    np.testing.assert_array_equal(quick_jit(jax.jacfwd(moved))(0.1), -80)


def test_a_wrapper_must_see_all_parameters():
    params = {"w": PARAMS["w"], "v": PARAMS["w"]}
    for wrap in (jo.kahan_summation, jo.master_weights, jo.stochastic_rounding):
        with pytest.raises(ValueError, match=f"{wrap.spec.name} must see all parameters"):
            jo.masked(wrap(jo.sgd(0.1)), {"w": True, "v": False}).init(params)
        with pytest.raises(ValueError, match="stack_leaves"):
            jo.stack_leaves(wrap(jo.sgd(0.1)))
        with pytest.raises(ValueError, match=f"{wrap.spec.name} needs params"):
            wrap(jo.sgd(0.1)).update(params, wrap(jo.sgd(0.1)).init(params))
        around = wrap(jo.chain(jo.masked(jo.trace(0.9), {"w": True, "v": False}), jo.stack_leaves(jo.adam(0.1), 2)))
        assert around.update(params, around.init(params), params)[0]["w"].dtype == jnp.float32


def test_bytes_of_state():
    weights = {"w": jax.ShapeDtypeStruct((1024, 1024), jnp.bfloat16)}
    eight = jo.quantize_state(jo.adamw(1e-3))
    for optimizer, wanted in (
        (jo.stochastic_rounding(jo.adamw(1e-3)), 8),
        (jo.stochastic_rounding(eight), 2.03125),
        (jo.kahan_summation(eight), 4.03125),
        (jo.master_weights(eight), 4.03125),
    ):
        assert jo.state_bytes(optimizer, weights) == wanted * 2**20
        assert jo.state_bytes(optimizer, weights["w"]) == wanted * 2**20


def test_runs_of_other_seeds_round_otherwise():
    """`init_state`, as `fit`, mixes the run's seed into the key."""
    task = jo.Task(lambda key: {"w": PARAMS["w"]}, lambda params, batch, key: jnp.sum(params["w"] ** 2))
    keys = [jo.init_state(task, jo.stochastic_rounding(jo.sgd(1e-4)), seed).opt_state.rng_key for seed in (0, 1)]
    assert keys[0] != keys[1]
