"""In company: inside Optax's wrappers, Flax's states, NNX's optimizer and Equinox's jit, everything works unchanged."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx
from flax.training.train_state import TrainState

import jaxopt_lite as jo
from jaxopt_lite import tree
from tests.contract.table import GRADS, PARAMS, RECIPES, STEPS, assert_close, at, compiled, member, run, scan
from tests.quick import quick_jit
from tests.recipes import MATRIX

ADAMW = RECIPES["adamw"]
ALL = {"w": True, "b": True}

# What wraps a rule and, wherever nothing is held back, changes nothing.
WRAPPERS = {
    "optax.chain": lambda rule: optax.chain(optax.identity(), rule),
    "optax.named_chain": lambda rule: optax.named_chain(("first", optax.identity()), ("second", rule)),
    "optax.MultiSteps": lambda rule: optax.MultiSteps(rule, 1).gradient_transformation(),
    "optax.masked": lambda rule: optax.masked(rule, ALL),
    "optax.partition": lambda rule: optax.partition({"all": rule}, {"w": "all", "b": "all"}),
    "optax.apply_if_finite": lambda rule: optax.apply_if_finite(rule, 3),
    "optax.with_extra_args_support": optax.with_extra_args_support,
    "optax.conditionally_transform": lambda rule: optax.conditionally_transform(rule, lambda step: step >= 0),
    "optax.conditionally_mask": lambda rule: optax.conditionally_mask(rule, lambda step: step >= 0),
    "jo.chain": lambda rule: jo.chain(jo.identity(), rule),
    "jo.chain of optax.chain": lambda rule: jo.chain(optax.chain(optax.identity(), rule)),
    "jo.masked": lambda rule: jo.masked(rule, ALL),
    "jo.partition": lambda rule: jo.partition({"all": rule}, {"w": "all", "b": "all"}),
    "jo.accumulate": lambda rule: jo.accumulate(rule, 1),
    "jo.lookahead": lambda rule: jo.lookahead(rule, 100, 0.5),
    "jo.skip_not_finite": jo.skip_not_finite,
    "jo.skip_large_updates": lambda rule: jo.skip_large_updates(rule, 1e6),
    "jo.as_optax": jo.as_optax,
}
# These of Optax's forward extra arguments only if asked.
FORGETFUL = {"optax.conditionally_transform", "optax.conditionally_mask"}


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapper_changes_nothing(name):
    """Optimizers with numbers, with arrays, and with tracers, in a scan under jit, give the same path as alone."""
    expected, _, _ = compiled(ADAMW, PARAMS, GRADS)

    @quick_jit
    def paths(traced):
        return [scan(WRAPPERS[name](optimizer))[0] for optimizer in (ADAMW, jo.arrays(ADAMW), traced)]

    for path, numbers in zip(paths(ADAMW), ("numbers", "arrays", "tracers"), strict=True):
        assert_close(path, expected, 2e-5, numbers)


@jo.transformation
def scale_by_value():
    """Asks for an extra argument by name, and for no others."""

    def update(updates, state, params=None, *, value):
        return jax.tree.map(lambda u: value * u, updates), state

    return lambda params: (), update


@jo.transformation
def remember_extra(names: tuple = ()):
    """Takes all extra arguments, and checks that those of these names arrive."""

    def update(updates, state, params=None, **extra):
        assert set(names) <= set(extra), sorted(extra)
        return updates, state

    return lambda params: (), update


@pytest.mark.parametrize("name", [name for name in WRAPPERS if name not in FORGETFUL])
def test_extra_arguments_arrive(name):
    """At the rules that want them, whatever lies between; and no rule minds those that it does not know."""
    inner = jo.chain(jo.trace(0.5), scale_by_value(), remember_extra(("value", "loss")), optax.scale(2.0))
    rule = WRAPPERS[name](inner)
    state = rule.init(PARAMS)
    updates, _ = rule.update(at(0), state, PARAMS, value=jnp.float32(3.0), loss=1.0)
    assert_close(updates, jax.tree.map(lambda g: 6 * g, at(0)), 1e-6)


def test_every_recipe_ignores_arguments_that_it_does_not_know():
    for name, recipe in RECIPES.items():
        jax.eval_shape(lambda g, p, r=recipe: r.update(g, r.init(p), p, value=1.0, loss=2.0), at(0), PARAMS), name


def test_optax_factories_of_optimizers_take_ours():
    """`inject_hyperparams` reads the signature of a factory; schedule-free and SAM wrap an optimizer."""
    injected = optax.inject_hyperparams(jo.adamw)(learning_rate=0.1, b1=0.8)
    expected, _, _ = run(jo.adamw(0.1, b1=0.8))
    assert_close(run(injected)[0], expected, 2e-5)
    assert float(injected.init(PARAMS).hyperparams["learning_rate"]) == pytest.approx(0.1)
    ours, theirs = (optax.contrib.schedule_free(rule, 0.1) for rule in (jo.sgd(0.1), optax.sgd(0.1)))
    assert_close(run(ours)[0], run(theirs)[0], 2e-5)


def test_our_rules_and_those_of_optax_chain_in_both_directions():
    ours = jo.chain(jo.clip_by_global_norm(1.5), jo.scale_by_adam(), jo.scale(-0.1))
    theirs = optax.chain(optax.clip_by_global_norm(1.5), optax.scale_by_adam(), optax.scale(-0.1))
    mixed = [
        jo.chain(optax.clip_by_global_norm(1.5), jo.scale_by_adam(), optax.scale(-0.1)),
        optax.chain(jo.clip_by_global_norm(1.5), optax.scale_by_adam(), jo.scale(-0.1)),
    ]
    expected = run(theirs)
    for optimizer in (ours, *mixed):
        assert_close(run(optimizer), expected, 2e-5)  # states too: the same fields


def test_multi_steps_and_apply_if_finite_hold_steps_back():
    held = run(optax.MultiSteps(jo.sgd(0.1), 2).gradient_transformation())[0]["w"]
    np.testing.assert_array_equal(held[::2], 0)
    np.testing.assert_allclose(held[1::2], -0.1 * (GRADS["w"][::2] + GRADS["w"][1::2]) / 2, 1e-5)
    optimizer = optax.apply_if_finite(jo.adamw(0.1), 3)
    state = optimizer.init(PARAMS)
    updates, after = optimizer.update(jax.tree.map(lambda g: g * jnp.nan, at(0)), state, PARAMS)
    assert_close(updates, jax.tree.map(jnp.zeros_like, PARAMS), 0)
    assert_close(after.inner_state, state.inner_state, 0)


def test_masked_leaves_of_optax_pass_through():
    path, _, _ = run(optax.masked(jo.adamw(0.1), MATRIX))
    assert_close(path["b"], GRADS["b"], 0)
    assert_close(path["w"], run(jo.adamw(0.1))[0]["w"], 1e-6)


# --- Flax -------------------------------------------------------------------------------------------------------------


def make_step():
    traces = []

    @jax.jit
    def step(state, grads):
        traces.append(1)
        return state.apply_gradients(grads=grads)

    return step, traces


def flax_state(optimizer):
    return TrainState.create(apply_fn=None, params=PARAMS, tx=optimizer)


def test_equal_optimizers_rebuilt_in_a_flax_state_compile_once():
    """`tx` is static there: compared and hashed at every call."""
    step, traces = make_step()
    for _ in range(3):
        schedule = jo.warmup_cosine_decay_schedule(0.0, 0.1, 2.5, 20.5)
        optimizer = jo.chain(jo.clip_by_global_norm(1.0), jo.adamw(schedule, mask=MATRIX))
        state = flax_state(optimizer)
        for t in range(STEPS):
            state = step(state, at(t))
    assert len(traces) == 1
    assert_close(state.params, run(optimizer)[1], 2e-5)
    step(flax_state(jo.chain(jo.clip_by_global_norm(2.0), optimizer.arguments["transforms"][1])), at(0))
    assert len(traces) == 2, "another number is another static value: that is why the number should be an argument"


def test_a_traced_optimizer_in_a_flax_state_leaks_nothing():
    """Made of tracers inside a nested jit under vmap; then the same step is called with numbers, and again."""
    step, _ = make_step()

    @jax.vmap
    @jax.jit
    def outer(rate):
        state = flax_state(jo.adam(rate))
        return step(step(state, at(0)), at(1)).params

    rates = jnp.array([0.1, 0.2, 0.3])
    batch = outer(rates)
    for i, rate in enumerate((0.1, 0.2, 0.3)):
        single = step(step(flax_state(jo.adam(rate)), at(0)), at(1)).params
        assert_close(member(batch, i), single, 2e-5)
    assert_close(outer(rates + 0.1), outer(rates + 0.1), 0)
    assert_close(step(flax_state(jo.adam(0.1)), at(0)).params, step(flax_state(jo.adam(0.1)), at(0)).params, 0)


class Layer(nnx.Module):
    def __init__(self, leaves):
        self.w, self.b = nnx.Param(leaves["w"]), nnx.Param(leaves["b"])


def nnx_run(optimizer):
    model = Layer(PARAMS)
    holder = nnx.Optimizer(model, optimizer, wrt=nnx.Param)

    @nnx.jit
    def step(model, holder, grads):
        holder.update(model, grads)

    for t in range(STEPS):
        step(model, holder, nnx.state(Layer(at(t)), nnx.Param))
    return {"w": model.w[...], "b": model.b[...]}


def test_nnx_holds_an_optimizer_of_numbers():
    assert_close(nnx_run(ADAMW), run(ADAMW)[1], 2e-5)


def test_nnx_holds_stacks_of_leaves():
    """It gives `init` its variables and `update` their bare arrays, and a stack says which leaves it is made of."""
    model = Pair()
    params = nnx.as_pure(nnx.state(model, nnx.Param))
    stacked = jo.chain(jo.stack_leaves(jo.chain(jo.trace(0.9), jo.ema_params(0.5))), jo.scale(-0.1))
    holder = nnx.Optimizer(model, stacked, wrt=nnx.Param)
    for _ in range(2):
        holder.update(model, jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param)))
    for old, new in zip(
        jax.tree.leaves(params), jax.tree.leaves(nnx.as_pure(nnx.state(model, nnx.Param))), strict=True
    ):
        np.testing.assert_allclose(new, old - 0.1 * (1 + 1.9), 1e-5)
    averages = jo.averaged_params(nnx.as_pure(holder.opt_state))
    assert jax.tree.structure(nnx.as_pure(averages)) == jax.tree.structure(params)


def test_nnx_holds_an_optimizer_of_arrays_as_a_plain_pair():
    """It refuses arrays in static places, so the leaves must hide as they do in Optax."""
    with pytest.raises(ValueError, match=r"[Aa]rray"):
        nnx_run(jo.arrays(ADAMW))
    assert_close(nnx_run(jo.as_optax(jo.arrays(ADAMW))), run(ADAMW)[1], 2e-5)


class Pair(nnx.Module):
    def __init__(self):
        self.body, self.head = nnx.Linear(2, 2, rngs=nnx.Rngs(0)), nnx.Linear(2, 1, rngs=nnx.Rngs(1))


def test_paths_and_masks_are_the_same_in_both_halves_of_nnx():
    """It gives `init` its variables and `update` their bare arrays; Linen's boxes of layouts come and go as well."""
    variables = nnx.state(Pair(), nnx.Param)
    names = ["body/bias", "body/kernel", "head/bias", "head/kernel"]
    for params in (variables, nnx.as_pure(variables), nnx.to_pure_dict(variables), Pair()):
        assert jax.tree.leaves(tree.paths(params)) == names
    boxed = {"dense": {"kernel": nn.Partitioned(jnp.ones(2), names=(None,)), "bias": jnp.ones(2), "value": jnp.ones(2)}}
    for params in (boxed, nn.unbox(boxed)):
        assert jax.tree.leaves(tree.paths(params)) == ["dense/bias", "dense/kernel", "dense/value"]

    bias = jo.by_path({"*/bias": True}, default=False)
    is_bias = jax.tree.map(lambda x: x.ndim == 1, variables)
    for rule in (
        *(jo.chain(jo.sgd(0.1), jo.freeze(mask)) for mask in (bias, is_bias, nnx.as_pure(is_bias))),
        jo.partition({"a": jo.adam(0.1), "b": jo.set_to_zero()}, jo.by_path({"*/bias": "b"}, default="a")),
        jo.partition({"a": jo.sgd(0.1), "b": jo.set_to_zero()}, jax.tree.map(lambda b: "ab"[b], is_bias)),
    ):
        model = Pair()
        before = jax.tree.leaves(nnx.state(model, nnx.Param))
        nnx.Optimizer(model, rule, wrt=nnx.Param).update(model, jax.tree.map(jnp.ones_like, variables))
        moved = [bool((w != old).any()) for w, old in zip(jax.tree.leaves(nnx.state(model, nnx.Param)), before)]
        assert moved == [False, True, False, True], rule


# --- Equinox ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("remedy", [True, False])
def test_equinox_traces_once_for_arrays(remedy):
    """`filter_jit` takes Python floats for static; `jo.arrays` makes them arguments."""
    traces = []

    @eqx.filter_jit
    def step(optimizer, params, grads):
        traces.append(1)
        return optimizer.update(grads, optimizer.init(params), params)[0]

    for rate in (0.1, 0.2, 0.3):
        optimizer = jo.adamw(rate)
        updates = step(jo.arrays(optimizer) if remedy else optimizer, PARAMS, at(0))
        assert_close(updates, optimizer.update(at(0), optimizer.init(PARAMS), PARAMS)[0], 1e-5)
    assert len(traces) == (1 if remedy else 3)


def test_equinox_modules_with_functions_inside_are_optimized_through_a_filter():
    model = eqx.nn.MLP(2, 1, 4, 1, key=jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_inexact_array)
    optimizer = jo.arrays(jo.adamw(0.1))

    @eqx.filter_jit
    def step(params, state):
        loss = lambda p: jnp.sum(eqx.combine(p, static)(jnp.ones(2)) ** 2)
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return eqx.apply_updates(params, updates), state

    new, _ = step(params, optimizer.init(params))
    assert jax.tree.structure(new) == jax.tree.structure(params)
    assert not np.allclose(new.layers[0].weight, params.layers[0].weight)
