"""Five steps of Optax and five of ours on its state are ten of either; what does not fit is refused by its path."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import jaxopt_lite as jo
from tests.quick import quick_jit

PARAMS = {"layers": [{"w": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3)}, {"w": jnp.ones((3, 2))}], "b": jnp.zeros(3)}
HIDDEN = jo.hidden_matrices(default="matrix")
COSINE = {"init_value": 0.1, "decay_steps": 8}

PAIRS = {
    "adamw": (optax.adamw(optax.cosine_decay_schedule(**COSINE)), jo.adamw(jo.cosine_decay_schedule(**COSINE))),
    "adafactor": (
        optax.adafactor(0.1, 2, momentum=0.9, weight_decay_rate=0.1),
        jo.adafactor(0.1, 2, momentum=0.9, weight_decay_rate=0.1),
    ),
    "muon": (optax.contrib.muon(0.1, weight_decay=0.1), jo.muon(0.1, weight_decay=0.1, labels=HIDDEN)),
}


def steps(optimizer, params, state, n):
    loss = lambda p: sum(jnp.sum(jnp.cosh(x - 0.3)) for x in jax.tree.leaves(p))

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, state), length=n)[0]


@pytest.mark.parametrize("name", PAIRS)
def test_a_run_continues_where_optax_left_it(name):
    theirs, ours = PAIRS[name]
    run = quick_jit(lambda params, state, ours=ours: steps(ours, params, state, 5))
    half = quick_jit(lambda params: steps(theirs, params, theirs.init(params), 5))(PARAMS)
    wanted, _ = quick_jit(lambda params, state: steps(theirs, params, state, 5))(*half)
    as_read = jax.tree.map(np.asarray, half[1])  # as from a checkpoint
    for state in [jo.carry_state(ours, PARAMS, as_read), *([half[1]] if name != "muon" else [])]:
        params, after = run(half[0], state)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), params, wanted)
    counts = {int(x) for x in jax.tree.leaves(after) if x.dtype == jnp.int32}
    assert counts == {10}


def test_dicts_and_lists_of_a_checkpoint_are_read_by_names():
    state = optax.adamw(0.1).init(PARAMS)
    plain = [{"count": 7, "mu": state[0].mu, "nu": jax.tree.map(jnp.ones_like, PARAMS)}, None, {}]
    carried = jo.carry_state(jo.adamw(0.1), PARAMS, plain)
    assert carried[0].count == 7 and (carried[0].nu["b"] == 1).all()
    assert jax.tree.structure(carried) == jax.tree.structure(jo.adamw(0.1).init(PARAMS))
    inside = jo.carry_state(jo.chain(jo.clip_by_global_norm(1.0), jo.adamw(0.1)), PARAMS, plain)
    assert inside[1][0].count == 7 and (inside[1][0].nu["b"] == 1).all()


def test_params_of_one_array():
    w = jnp.ones((2, 2))
    state = optax.adam(0.1).init(w)[0]._replace(count=jnp.int32(3), nu=2 * w)
    carried = jo.carry_state(jo.chain(jo.identity(), jo.adam(0.1)), w, (state, ()))
    assert carried[1][0].count == 3 and (carried[1][0].nu == 2).all()


def test_what_does_not_fit_is_refused_by_its_path():
    adam, other = optax.adam(0.1).init(PARAMS), jax.tree.map(lambda p: p[:1], PARAMS)
    routed = jo.muon(0.1, labels={"layers": "adam", "b": "adam"})
    scheduled = jo.chain(jo.identity(), jo.adam(jo.linear_schedule(0.1, 0.0, 9)))
    two = (adam[0], adam[0]._replace(count=jnp.int32(4), mu={}, nu={}))
    for optimizer, state, message in (
        (jo.sgd(0.1, momentum=0.9), adam, r"keeps 'trace' of the parameter 'b' 1 times.*it has 'mu', 'nu'"),
        (jo.adam(0.1), optax.lion(0.1).init(PARAMS), r"keeps 'nu' of the parameter 'b' 1 times.*it has 'mu'"),
        (jo.lion(0.1), adam, "has no place for '0/nu/b' of the given state"),
        (jo.skip_not_finite(jo.adam(0.1)), adam, "'skipped' of the optimizer cannot be known.*no 'skipped'"),
        (jo.adam(0.1), optax.adam(0.1).init(other), r"'0/mu/b' of the given state has the shape \(1,\).*has \(3,\)"),
        (scheduled, two, r"'1/1/count' of the optimizer cannot be known.*0/count=0, 1/"),
        (routed, PAIRS["muon"][0].init(PARAMS), "keeps 'nu' .*layers/0/w"),
    ):
        with pytest.raises(ValueError, match="carry_state: .*" + message):
            jo.carry_state(optimizer, PARAMS, state)
