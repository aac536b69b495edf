"""Recipes: what each of them chains, what its first steps are, and that every option does something."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from jaxopt_lite import optimizers
from tests.transforms.rollout import GRADS, PARAMS, descend

MASK = {"w": True, "b": False}

# The chain of each recipe, all of its arguments away from their defaults.
RECIPES = {
    "sgd": (
        jo.sgd(0.1, 0.7, True, "bfloat16"),
        "chain(trace(0.7, nesterov=True, accumulator_dtype='bfloat16'), scale_by_learning_rate(0.1))",
    ),
    "noisy_sgd": (jo.noisy_sgd(0.1, 0.3, 0.8, 7), "chain(add_noise(0.3, 0.8, key=7), scale_by_learning_rate(0.1))"),
    "signum": (
        jo.signum(0.1, 0.7, "bfloat16"),
        "chain(ema(0.7, debias=False, accumulator_dtype='bfloat16'), scale_by_sign(), scale_by_learning_rate(0.1))",
    ),
    "adagrad": (
        jo.adagrad(0.1, 0.3, 0.2),
        "chain(scale_by_rss(initial_accumulator_value=0.3, eps=0.2), scale_by_learning_rate(0.1))",
    ),
    "adadelta": (
        jo.adadelta(0.1, 0.8, 0.2, 0.3, MASK),
        "chain(add_decayed_weights(weight_decay=0.3, mask={'w': True, 'b': False}),"
        " scale_by_adadelta(rho=0.8, eps=0.2), scale_by_learning_rate(0.1))",
    ),
    "rmsprop": (
        jo.rmsprop(0.1, 0.8, 0.2, 0.3, False, False, 0.7, True, True),
        "chain(scale_by_rms(decay=0.8, eps=0.2, initial_scale=0.3, eps_in_sqrt=False, bias_correction=True),"
        " scale_by_learning_rate(0.1), trace(0.7, nesterov=True))",
    ),
    "rmsprop_centered": (
        jo.rmsprop(0.1, 0.8, 0.2, 0.3, False, True, None, False, True),
        "chain(scale_by_stddev(decay=0.8, eps=0.2, initial_scale=0.3, eps_in_sqrt=False, bias_correction=True),"
        " scale_by_learning_rate(0.1), identity())",
    ),
    "adam": (
        jo.adam(0.1, 0.8, 0.95, 0.2, 0.3, "bfloat16", nesterov=True),
        "chain(scale_by_adam(b1=0.8, b2=0.95, eps=0.2, eps_root=0.3, mu_dtype='bfloat16', nesterov=True),"
        " scale_by_learning_rate(0.1))",
    ),
    "adamw": (
        jo.adamw(0.1, 0.8, 0.95, 0.2, 0.3, "bfloat16", 0.4, MASK, nesterov=True),
        "chain(scale_by_adam(b1=0.8, b2=0.95, eps=0.2, eps_root=0.3, mu_dtype='bfloat16', nesterov=True),"
        " add_decayed_weights(weight_decay=0.4, mask={'w': True, 'b': False}), scale_by_learning_rate(0.1))",
    ),
    "nadam": (
        jo.nadam(0.1, 0.8, 0.95, 0.2, 0.3, "bfloat16"),
        "adam(0.1, b1=0.8, b2=0.95, eps=0.2, eps_root=0.3, mu_dtype='bfloat16', nesterov=True)",
    ),
    "nadamw": (
        jo.nadamw(0.1, 0.8, 0.95, 0.2, 0.3, "bfloat16", 0.4, MASK),
        "adamw(0.1, b1=0.8, b2=0.95, eps=0.2, eps_root=0.3, mu_dtype='bfloat16', weight_decay=0.4,"
        " mask={'w': True, 'b': False}, nesterov=True)",
    ),
    "adamax": (
        jo.adamax(0.1, 0.8, 0.95, 0.2),
        "chain(scale_by_adamax(b1=0.8, b2=0.95, eps=0.2), scale_by_learning_rate(0.1))",
    ),
    "amsgrad": (
        jo.amsgrad(0.1, 0.8, 0.85, 0.2, 0.3, "bfloat16", False, False, form="torch"),
        "chain(scale_by_amsgrad(b1=0.8, b2=0.85, eps=0.2, eps_root=0.3, mu_dtype='bfloat16', bias_correction_mu=False,"
        " bias_correction_nu=False, form='torch'), scale_by_learning_rate(0.1))",
    ),
    "adabelief": (
        jo.adabelief(0.1, 0.8, 0.95, 0.2, 0.3, nesterov=True),
        "chain(scale_by_belief(b1=0.8, b2=0.95, eps=0.2, eps_root=0.3, nesterov=True), scale_by_learning_rate(0.1))",
    ),
    "yogi": (
        jo.yogi(0.1, 0.8, 0.95, 0.2),
        "chain(scale_by_yogi(b1=0.8, b2=0.95, eps=0.2), scale_by_learning_rate(0.1))",
    ),
    "radam": (
        jo.radam(0.1, 0.8, 0.95, 0.2, 0.3, 6.0, nesterov=True),
        "chain(scale_by_radam(b1=0.8, b2=0.95, eps=0.2, eps_root=0.3, threshold=6.0, nesterov=True),"
        " scale_by_learning_rate(0.1))",
    ),
    "lion": (
        jo.lion(0.1, 0.8, 0.95, "bfloat16", 0.4, MASK),
        "chain(scale_by_lion(b1=0.8, b2=0.95, mu_dtype='bfloat16'),"
        " add_decayed_weights(weight_decay=0.4, mask={'w': True, 'b': False}), scale_by_learning_rate(0.1))",
    ),
    "lamb": (
        jo.lamb(0.1, 0.8, 0.95, 0.2, 0.3, 0.4, MASK),
        "chain(scale_by_adam(b1=0.8, b2=0.95, eps=0.2, eps_root=0.3),"
        " add_decayed_weights(weight_decay=0.4, mask={'w': True, 'b': False}), scale_by_trust_ratio(),"
        " scale_by_learning_rate(0.1))",
    ),
    "lars": (
        jo.lars(0.1, 0.4, MASK, 0.2, 0.3, {"w": False, "b": True}, 0.7, True),
        "chain(add_decayed_weights(weight_decay=0.4, mask={'w': True, 'b': False}),"
        " masked(scale_by_trust_ratio(trust_coefficient=0.2, eps=0.3), {'w': False, 'b': True}),"
        " scale_by_learning_rate(0.1), trace(0.7, nesterov=True))",
    ),
    "novograd": (
        jo.novograd(0.1, 0.8, 0.6, 0.2, 0.3, 0.4),
        "chain(scale_by_novograd(b1=0.8, b2=0.6, eps=0.2, eps_root=0.3, weight_decay=0.4),"
        " scale_by_learning_rate(0.1))",
    ),
    "adan": (
        jo.adan(0.1, 0.8, 0.7, 0.9, 0.2, 0.3, 0.4, MASK),
        "chain(scale_by_adan(b1=0.8, b2=0.7, b3=0.9, eps=0.2, eps_root=0.3), scale_by_learning_rate(0.1),"
        " proximal_l2(0.1, 0.4, mask={'w': True, 'b': False}))",
    ),
    "rprop": (
        jo.rprop(0.1, 0.4, 1.5, 0.05, 0.12),
        "chain(scale_by_rprop(0.1, eta_minus=0.4, eta_plus=1.5, min_step_size=0.05, max_step_size=0.12), scale(-1.0))",
    ),
}


def test_every_recipe_is_here():
    assert {value.factory.spec.name for value, _ in RECIPES.values()} == set(optimizers.__all__)


@pytest.mark.parametrize(("recipe", "chain"), RECIPES.values(), ids=RECIPES)
def test_what_a_recipe_chains(recipe, chain):
    assert repr(recipe.inner) == chain


def test_without_momentum_nothing_is_stored():
    assert repr(jo.sgd(0.1).inner) == "chain(identity(), scale_by_learning_rate(0.1))"
    assert jax.tree.leaves(jo.sgd(0.1).init(PARAMS)) == []


# --- Every option does something ------------------------------------------------------------------

GROUND = {  # values on which the others can be told apart, where the defaults hide a difference
    "sgd": {"momentum": 0.7},
    "rmsprop": {"momentum": 0.7, "eps": 0.1},
    "adadelta": {"weight_decay": 0.3, "eps": 0.1},
    "adamw": {"weight_decay": 0.3},
    "nadamw": {"weight_decay": 0.3},
    "lion": {"weight_decay": 0.3},
    "lamb": {"weight_decay": 0.3},
    "lars": {"weight_decay": 0.3},
    "adan": {"weight_decay": 0.3},
    "amsgrad": {"b2": 0.5},
    "radam": {"b2": 0.95},
    "rprop": {"min_step_size": 0.05, "max_step_size": 0.11},
}


def other(name, value):
    """Another value of an argument."""
    if name in ("mask", "weight_decay_mask", "trust_ratio_mask"):
        return {"w": False, "b": True}  # one number alone has no direction, and a trust ratio hides its decay
    if name in ("mu_dtype", "accumulator_dtype"):
        return "bfloat16"
    if name == "form":
        return "torch"
    if name == "key":
        return 7
    if isinstance(value, bool):
        return not value
    if name == "momentum":
        return 0.5
    if name == "threshold":
        return 100.0
    if name.startswith(("b1", "b2", "b3", "beta", "rho", "decay")):
        return 0.3
    return 0.1 if value == 0 else 2.0 * value if "eps" not in name else value + 0.1


LONG = GRADS * 3  # rectification begins after a few steps


@pytest.mark.parametrize("name", optimizers.__all__)
def test_every_option_makes_a_difference(name):
    factory = getattr(jo, name)
    ground = {"learning_rate": 0.1, **GROUND.get(name, {})}
    base, base_state = descend(factory(**ground), LONG)
    for option in factory.spec.parameters:
        start = factory(**ground).arguments[option]
        changed, state = descend(factory(**{**ground, option: other(option, start)}), LONG)
        pair = (base_state, state) if "dtype" in option else (base, changed)  # of few bits a sign shows nothing
        same = jax.tree.all(jax.tree.map(np.array_equal, *pair))
        assert not same, f"{name}({option}={other(option, start)!r}) is {name}({option}={start!r})"


# --- Laws -----------------------------------------------------------------------------------------


def first_step(recipe, g, w=1.0):
    params = {"w": jnp.array([w]), "b": jnp.array([w])}
    new, _ = descend(recipe, [jax.tree.map(lambda p: jnp.full_like(p, g), params)], params)
    return float(new["w"][0]) - w, float(new["b"][0]) - w


SIGNED = ["adam", "adamax", "amsgrad", "signum", "rprop"]


@pytest.mark.parametrize("name", SIGNED)
@pytest.mark.parametrize("g", [-3e-3, 70.0])
def test_the_first_step_has_the_length_of_the_learning_rate(name, g):
    np.testing.assert_allclose(first_step(getattr(jo, name)(0.1), g), -0.1 * np.sign(g), rtol=1e-4)


@pytest.mark.parametrize("name", ["adamw", "nadamw", "lion"])
def test_decoupled_decay_is_in_proportion_to_the_weights_whatever_the_gradient(name):
    recipe = getattr(jo, name)
    for g in (0.0, 5.0):
        with_decay = first_step(recipe(0.1, weight_decay=0.5, mask=MASK), g, w=2.0)
        without = first_step(recipe(0.1, weight_decay=0.0), g, w=2.0)
        np.testing.assert_allclose(np.subtract(with_decay, without), [-0.1 * 0.5 * 2.0, 0], atol=1e-6)


def test_coupled_decay_is_a_gradient_like_any_other():
    # Adadelta decays before it scales: a loss with a quadratic penalty.
    penalty, _ = descend(jo.adadelta(1.0, weight_decay=0.3))
    params, rule = PARAMS, jo.adadelta(1.0)
    state = rule.init(params)
    for g in GRADS:
        update, state = rule.update(jax.tree.map(lambda g, w: g + 0.3 * w, g, params), state, params)
        params = jo.apply_updates(params, update)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), penalty, params)


def test_lamb_moves_each_leaf_by_the_rate_times_its_length():
    params = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([0.1, 0.0])}
    new, _ = descend(jo.lamb(0.1), [jax.tree.map(lambda p: jnp.array([7.0, -1e3]), params)], params)
    for leaf in params:
        moved, length = jnp.linalg.norm(new[leaf] - params[leaf]), jnp.linalg.norm(params[leaf])
        np.testing.assert_allclose(moved, 0.1 * length, rtol=1e-4)


def test_lars_moves_each_leaf_by_the_rate_and_the_coefficient_times_its_length():
    params = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([0.1, 0.0])}
    grads = jax.tree.map(lambda p: jnp.array([7.0, -1e3]), params)
    new, _ = descend(jo.lars(0.5, trust_coefficient=0.01, momentum=0.0), [grads], params)
    for leaf in params:
        moved, length = jnp.linalg.norm(new[leaf] - params[leaf]), jnp.linalg.norm(params[leaf])
        np.testing.assert_allclose(moved, 0.5 * 0.01 * length, rtol=1e-4)


def test_adan_s_decay_never_overshoots_zero():
    step = first_step(jo.adan(1.0, weight_decay=1e6), 0.0, w=2.0)
    np.testing.assert_allclose(step, -2.0, rtol=1e-5)
    np.testing.assert_allclose(first_step(jo.adan(0.1, weight_decay=2.0), 0.0, w=2.0), 2 / 1.2 - 2, rtol=1e-5)


def test_momentum_of_rmsprop_and_lars_acts_on_steps_of_the_learning_rate():
    # A rate that falls to zero does not stop them at once: what they have gathered goes on.
    falling = jo.piecewise_constant_schedule(0.1, {1: 0.0})
    for recipe in (jo.rmsprop(falling, momentum=0.5), jo.lars(falling, momentum=0.5)):
        one, _ = descend(recipe, GRADS[:1])
        two, _ = descend(recipe, [GRADS[0]] * 2)
        np.testing.assert_allclose(two["b"] - one["b"], 0.5 * (one["b"] - PARAMS["b"]), rtol=1e-4)


@pytest.mark.parametrize("name", optimizers.__all__)
def test_it_goes_down_a_valley(name):
    rates = {"adadelta": 30.0, "lars": 30.0, "adagrad": 0.5, "yogi": 0.03, "noisy_sgd": 0.05, "sgd": 0.05}
    recipe = getattr(jo, name)(rates.get(name, 0.03))
    start, curvatures = jnp.array([2.0, -1.5]), jnp.array([1.0, 10.0])

    def loss(w):
        return 0.5 * jnp.sum(curvatures * w**2)

    def step(carry, _):
        w, state = carry
        update, state = recipe.update(jax.grad(loss)(w), state, w)
        return (jo.apply_updates(w, update), state), None

    (end, _), _ = jax.lax.scan(step, (start, recipe.init(start)), length=200)
    assert loss(end) < 0.05 * loss(start)
