import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo

from .rollout import GRADS, PARAMS, descend, updates

INNER = jo.adam(jo.linear_schedule(0.1, 0.0, 10))  # moments, and two counts


def spoil(grads, bad):
    return {"w": grads["w"].at[1].set(bad), "b": grads["b"]}


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_nan_becomes_zero_coordinate_by_coordinate():
    (found,), state = updates(jo.zero_nans(), [{"a": jnp.array([jnp.nan, 2.0, jnp.inf]), "b": jnp.array(3.0)}])
    assert found["a"].tolist() == [0, 2, jnp.inf] and found["b"] == 3
    assert bool(state.found_nan["a"]) and not state.found_nan["b"]


def test_nans_are_found_anew_at_each_step():
    _, state = updates(jo.zero_nans(), [jnp.array([jnp.nan]), jnp.array([1.0])])
    assert not state.found_nan


@pytest.mark.parametrize("guard", [jo.skip_not_finite, lambda inner: jo.skip_large_updates(inner, 100.0)])
def test_steps_that_are_not_finite_leave_no_trace(guard):
    # Parameters, moments and counts are as if those steps had never been.
    bad = [spoil(GRADS[1], number) for number in (jnp.nan, jnp.inf, -jnp.inf)]
    with_bad, state = descend(guard(INNER), [GRADS[0], *bad, GRADS[2]])
    without, clean = descend(guard(INNER), [GRADS[0], GRADS[2]])
    same(with_bad, without)
    same(state.inner_state, clean.inner_state)
    assert state.skipped == 3 and not state.last_skipped


def test_the_last_step_is_known_to_be_left_out():
    _, state = descend(jo.skip_not_finite(INNER), [GRADS[0], spoil(GRADS[1], jnp.nan)])
    assert state.last_skipped and state.skipped == 1


def test_without_bad_steps_the_guard_is_not_there():
    guarded, state = descend(jo.skip_not_finite(INNER))
    plain, inner = descend(INNER)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5)
    jax.tree.map(close, (guarded, state.inner_state), (plain, inner))
    assert state.skipped == 0


def test_steps_above_the_bound_are_left_out_and_steps_at_it_are_not():
    grads = [jnp.array([3.0, 4.0]), jnp.array([3.0, 4.1]), jnp.array([3e30, 4e30]), jnp.array([0.3, 0.4])]
    found, state = updates(jo.skip_large_updates(jo.scale(1.0), max_norm=5.0), grads)
    assert [bool(u.any()) for u in found] == [True, False, False, True] and state.skipped == 2


def test_a_guard_sees_what_reaches_it():
    # Clipping outside a guard makes large steps short before they are judged.
    clipped = jo.chain(jo.clip(1.0), jo.skip_large_updates(jo.scale(1.0), 5.0))
    found, _ = updates(clipped, [jnp.array([30.0, 40.0])])
    assert found[0].tolist() == [1, 1]


def test_extra_arguments_and_params_reach_the_inner_rule():
    params, _ = descend(jo.skip_not_finite(jo.chain(jo.add_decayed_weights(0.5), jo.sgd(1.0))), GRADS[:1])
    np.testing.assert_allclose(params["w"], PARAMS["w"] - GRADS[0]["w"] - 0.5 * PARAMS["w"], rtol=1e-6)
