"""Recipes: what each of them chains, what its first steps are, and that every option does something."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from jaxopt_lite import optimizers
from tests.contract.table import plain, run
from tests.each import for_each
from tests.recipes import RECIPES
from tests.transforms.rollout import GRADS, PARAMS, descend

MASK = {"w": True, "b": False}


def test_every_recipe_is_in_the_table():
    missing = set(optimizers.__all__) - {row.value.factory.spec.name for row in RECIPES.values()} - {"polyak_sgd"}
    assert not missing, f"add rows for {sorted(missing)} to tests/recipes.py"


@for_each(RECIPES)
def test_what_a_recipe_chains(name):
    recipe, chain = RECIPES[name]
    assert repr(recipe.inner) == repr(chain) and recipe.inner == chain


def test_without_momentum_nothing_is_stored():
    assert repr(jo.sgd(0.1).inner) == "chain(identity(), scale_by_learning_rate(0.1))"
    assert jax.tree.leaves(jo.sgd(0.1).init(PARAMS)) == []


# --- Every option does something ------------------------------------------------------------------


@for_each(RECIPES)
def test_every_option_makes_a_difference(name):
    """At its default, a switch, mask, dtype or seed changes what a run makes; for numbers see test_compiled.py."""
    recipe = RECIPES[name].value
    spec, base = recipe.factory.spec, run(recipe)
    for option, parameter in spec.parameters.items():
        given, default = recipe.arguments[option], parameter.default
        if default is inspect.Parameter.empty or isinstance(default, float) or given is default:
            continue
        if isinstance(given, str) and given == default:
            continue
        # muon's default labels go by names and refuse these; `replace` takes no other rule
        if option == "labels" or isinstance(given, jo.GradientTransformation):
            continue
        if option == "min_dim_size_to_factor" and not recipe.arguments["factored"]:
            continue
        other = run(jo.replace(recipe, {f"{spec.name}.{option}": default}))
        made = "state" if "dtype" in option and option != "ns_dtype" else "updates"  # of few bits a sign shows nothing
        pair = [plain(parts[2] if made == "state" else parts[0]) for parts in (base, other)]
        same = jax.tree.all(jax.tree.map(np.array_equal, *pair))
        assert not same, f"{option}={given!r} makes the {made} of {option}={default!r}"


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
    # A rate that falls to zero does not stop them at once: their momentum continues.
    falling = jo.piecewise_constant_schedule(0.1, {1: 0.0})
    for recipe in (jo.rmsprop(falling, momentum=0.5), jo.lars(falling, momentum=0.5)):
        one, _ = descend(recipe, GRADS[:1])
        two, _ = descend(recipe, [GRADS[0]] * 2)
        np.testing.assert_allclose(two["b"] - one["b"], 0.5 * (one["b"] - PARAMS["b"]), rtol=1e-4)


@pytest.mark.parametrize("name", sorted(set(optimizers.__all__) - {"polyak_sgd"}))  # it is fed the value
def test_it_goes_down_a_valley(name):
    rates = {"adadelta": 30.0, "lars": 30.0, "adagrad": 0.5, "yogi": 0.03, "noisy_sgd": 0.05, "sgd": 0.05}
    rates |= {"dog": 1.0, "dowg": 1.0, "simplified_ademamix": 0.01}
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
