import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_lite as jo

from .rollout import GRADS, PARAMS, descend, updates


def same(a, b, rtol=0.0):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol), a, b)


def counting():
    """A rule that passes gradients on, and the list of what it was called with, once for each time that it ran."""
    calls = []

    @jo.transformation
    def rule():
        def update(updates, state, params=None, **extra):
            jax.debug.callback(lambda u: calls.append(np.asarray(u).tolist()), updates)
            return updates, state + 1

        return lambda params: jnp.zeros([], jnp.int32), update

    return rule(), calls


# --- Accumulation ---------------------------------------------------------------------------------


def test_micro_batches_are_one_large_batch():
    mean = jax.tree.map(lambda *g: sum(g) / 3, *GRADS)
    accumulated, state = descend(jo.accumulate(jo.adamw(0.1, weight_decay=0.3), 3), GRADS * 2)
    large, inner = descend(jo.adamw(0.1, weight_decay=0.3), [mean, mean])
    same(accumulated, large, 1e-6)
    same(state.inner_state, inner, 1e-5)
    assert (state.mini_step, state.gradient_step) == (0, 2)


def test_in_between_nothing_moves():
    found, state = updates(jo.accumulate(jo.sgd(0.1), 3), GRADS[:2])
    assert not any(leaf.any() for leaf in jax.tree.leaves(found))
    assert state.mini_step == 2 and state.gradient_step == 0


def test_the_inner_rule_runs_once_in_k():
    rule, calls = counting()
    _, state = updates(jo.accumulate(rule, 3), [jnp.array(float(i)) for i in range(9)])
    jax.effects_barrier()
    assert calls == [1.0, 4.0, 7.0] and state.inner_state == 3


def test_of_one_micro_batch_it_is_the_inner_rule():
    same(descend(jo.accumulate(jo.adam(0.1), 1))[0], descend(jo.adam(0.1))[0], 1e-5)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_a_bad_micro_batch_does_not_poison_the_others(bad):
    rule, calls = counting()
    found, state = updates(jo.accumulate(rule, 3), [jnp.array(g) for g in (1.0, bad, 5.0, 2.0, 2.0, 2.0)])
    jax.effects_barrier()
    assert calls == [3.0, 2.0] and float(found[2]) == 3 and state.gradient_step == 2


def test_of_bad_micro_batches_alone_no_step_is_made():
    rule, calls = counting()
    found, state = updates(jo.accumulate(rule, 2), [jnp.array(g) for g in (jnp.nan, jnp.nan, 4.0, 6.0)])
    jax.effects_barrier()
    assert calls == [5.0] and [float(u) for u in found] == [0, 0, 0, 5] and state.gradient_step == 1


def test_the_mean_of_the_largest_gradients_does_not_overflow():
    found, _ = updates(jo.accumulate(jo.scale(1.0), 3), [jnp.array(3e38)] * 3)
    np.testing.assert_allclose(found[-1], 3e38, rtol=1e-6)


def test_the_mean_is_kept_in_float32():
    # 1024 + 1 is 1024 in bfloat16.
    grads = [jnp.array(g, jnp.bfloat16) for g in (1024.0, 1.0, 1.0, 1.0)]
    _, state = updates(jo.accumulate(jo.scale(1.0), 5), grads)
    assert state.acc_grads.dtype == jnp.float32 and float(state.acc_grads) == pytest.approx(1027 / 4)


def test_the_number_of_micro_batches_may_be_traced():
    def total(k):
        found, _ = updates(jo.accumulate(jo.scale(1.0), k), [jnp.array(1.0)] * 4)
        return jnp.stack(found)

    assert jax.vmap(total)(jnp.array([1.0, 2.0, 4.0])).tolist() == [[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1]]


# --- Averages of parameters -----------------------------------------------------------------------


@pytest.mark.parametrize("debias", [True, False])
def test_the_average_is_the_written_recursion(debias):
    optimizer, decay = jo.chain(jo.sgd(0.1), jo.ema_params(0.6, debias)), 0.6
    state, params = optimizer.init(PARAMS), PARAMS
    average = np.asarray(PARAMS["w"])
    for t, g in enumerate(GRADS * 4):
        update, state = optimizer.update(g, state, params)
        params = jo.apply_updates(params, update)
        rate = min(decay, (1 + t) / (10 + t)) if debias else decay
        average = rate * average + (1 - rate) * np.asarray(params["w"])
    np.testing.assert_allclose(jo.averaged_params(state)["w"], average, rtol=1e-5)
    assert (1 + t) / (10 + t) < decay  # 12 steps: the rising decay was the one in use


def test_the_rising_decay_ends_at_the_one_that_was_asked_for():
    optimizer = jo.ema_params(0.3)
    state = optimizer.init(jnp.zeros(()))
    for _ in range(6):
        _, state = optimizer.update(jnp.zeros(()), state, jnp.zeros(()))
    _, state = optimizer.update(jnp.zeros(()), state, jnp.ones(()))
    np.testing.assert_allclose(jo.averaged_params(state), 0.7, rtol=1e-6)  # (1 + 6) / (10 + 6) is above 0.3


def test_averaging_leaves_the_updates_alone():
    same(descend(jo.chain(jo.adam(0.1), jo.ema_params(0.9)))[0], descend(jo.adam(0.1))[0])


def test_the_average_is_found_wherever_it_is():
    for wrap in (jo.skip_not_finite, lambda o: jo.lookahead(o, 2, 0.5), lambda o: jo.masked(o, True)):
        _, state = descend(wrap(jo.chain(jo.sgd(0.1), jo.ema_params(0.9))))
        assert jo.averaged_params(state)["w"].shape == (3,)


def test_the_average_is_of_float32_and_returned_in_the_dtypes_of_params():
    half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    _, state = descend(jo.ema_params(0.9), GRADS, half)
    assert jo.averaged_params(state)["w"].dtype == jnp.float32
    assert jo.averaged_params(state, half)["w"].dtype == jnp.bfloat16


# --- Lookahead ------------------------------------------------------------------------------------


def path(optimizer, steps, start=0.0):
    params, state, step = jnp.array(start), optimizer.init(jnp.array(start)), jax.jit(optimizer.update)
    for _ in range(steps):
        update, state = step(jnp.array(1.0), state, params)
        params = jo.apply_updates(params, update)
        yield float(params), state


def test_every_k_steps_the_fast_weights_start_again_at_the_slow_ones():
    found = [params for params, _ in path(jo.lookahead(jo.sgd(1.0), 3, 0.5), 7)]
    # Fast: -1, -2, -3. Slow: half of the way to -3. And again.
    np.testing.assert_allclose(found, [-1, -2, -1.5, -2.5, -3.5, -3, -4], rtol=1e-6)


@pytest.mark.parametrize(("share", "end"), [(0.0, 0.0), (1.0, -4.0), (0.25, -1.0)])
def test_the_share_of_the_way(share, end):
    *_, (params, _) = path(jo.lookahead(jo.sgd(1.0), 4, share), 4)
    np.testing.assert_allclose(params, end, atol=1e-6)


def test_synchronised_at_every_step_by_the_whole_way_it_is_the_fast_rule():
    same(descend(jo.lookahead(jo.adam(0.1), 1, 1.0))[0], descend(jo.adam(0.1))[0], 1e-6)


@pytest.mark.parametrize("reset", [False, True])
def test_the_fast_state_goes_on_or_begins_anew(reset):
    optimizer = jo.lookahead(jo.sgd(1.0, momentum=0.5), 2, 0.5, reset_state=reset)
    velocities = [float(state.inner_state[0].trace) for _, state in path(optimizer, 3)]
    assert velocities == ([1, 0, 1] if reset else [1, 1.5, 1.75])


def test_the_slow_weights_do_not_share_a_buffer_with_the_parameters():
    # Both are donated by a training step.
    params = jnp.ones(2)
    for optimizer in (jo.lookahead(jo.sgd(0.1), 2, 0.5), jo.ema_params(0.9)):
        kept = [leaf for leaf in jax.tree.leaves(optimizer.init(params)) if leaf.shape == (2,)]
        assert kept and all(leaf.unsafe_buffer_pointer() != params.unsafe_buffer_pointer() for leaf in kept)


def test_wrappers_nest():
    optimizer = jo.lookahead(jo.accumulate(jo.sgd(1.0), 2), 4, 0.5)
    np.testing.assert_allclose([p for p, _ in path(optimizer, 5)], [0, -1, -1, -1, -1], atol=1e-6)
    assert isinstance(optimizer, optax.GradientTransformationExtraArgs)


def rolled(optimizer, grads, start=1.0):
    """The parameters after each gradient of one number, and the last state."""
    w, path = jnp.array(start), []
    state = optimizer.init(w)
    for g in grads:
        update, state = optimizer.update(jnp.array(g), state, w)
        w = w + update
        path.append(float(w))
    return path, state


def test_a_tail_average_is_the_mean_since_its_start():
    path, state = rolled(jo.chain(jo.sgd(0.1), jo.tail_average(2)), [1.0, -2.0, 3.0, 0.5, 4.0])
    np.testing.assert_allclose(jo.averaged_params(state), np.mean(path[2:]), rtol=1e-6)
    path, state = rolled(jo.chain(jo.sgd(0.1), jo.tail_average()), [1.0, -2.0, 3.0])
    np.testing.assert_allclose(jo.averaged_params(state), np.mean(path), rtol=1e-6)


def test_latest_weights_are_the_last_snapshots():
    optimizer = jo.chain(jo.sgd(0.1), jo.latest_weights(2, size=2))
    for steps, wanted in ((1, None), (3, [1]), (4, [1, 3]), (7, [3, 5])):
        path, state = rolled(optimizer, [1.0, -2.0, 3.0, 0.5, 4.0, -1.0, 2.0][:steps])
        mean = 1.0 if wanted is None else np.mean([path[i] for i in wanted])
        np.testing.assert_allclose(jo.averaged_params(state), mean, rtol=1e-6)


def test_outer_nesterov_by_hand():
    """Two rounds of two steps; then η = 1 and μ = 0, which is the inner rule."""
    path, _ = rolled(jo.outer_nesterov(jo.sgd(0.1), 2, 0.5, 0.8), [1.0, 2.0, 3.0, 4.0])
    v = 0.3
    slow = 1.0 - 0.5 * (0.3 + 0.8 * v)
    np.testing.assert_allclose(path[:3], [0.9, slow, slow - 0.3], rtol=1e-6)
    v = 0.8 * v + 0.7
    np.testing.assert_allclose(path[3], slow - 0.5 * (0.7 + 0.8 * v), atol=1e-6)
    plain, _ = rolled(jo.sgd(0.1), [1.0, 2.0, 3.0, 4.0])
    same, _ = rolled(jo.outer_nesterov(jo.sgd(0.1), 2, 1.0, 0.0), [1.0, 2.0, 3.0, 4.0])
    np.testing.assert_allclose(same, plain, atol=1e-6)
