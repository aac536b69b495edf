"""`stack_leaves` does what the inner rule does leaf by leaf, bit for bit, and refuses rules that look at leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_lite as jo

STEPS = 5
SCHEDULE = jo.warmup_cosine_decay_schedule(0.0, 1e-2, warmup_steps=2, decay_steps=9)
RULES = [
    jo.adam(1e-2),
    jo.adamw(SCHEDULE, weight_decay=1e-2),
    jo.sgd(1e-2, momentum=0.9, nesterov=True),
    jo.rmsprop(1e-2, centered=True, momentum=0.5),
    jo.chain(jo.zero_nans(), jo.clip(0.5), jo.lion(1e-3)),
    jo.adan(1e-2, weight_decay=1e-2),
    jo.lookahead(jo.accumulate(jo.radam(1e-2), 2), 3, 0.5),
]


def mixed(seed):
    """Leaves of four shapes and two dtypes in mixed order, some without equal, one large."""
    numbers = np.random.default_rng(seed)
    shapes = {"w": (3, 4), "b": (4,), "t": (2, 3, 4)}
    leaves = {f"{name}{i}": numbers.normal(size=s) for i in range(3) for name, s in shapes.items()}
    leaves |= {"scalar": np.float32(0.3), "other": np.float32(-2.0), "lonely": numbers.normal(size=(5, 2))}
    leaves |= {"large": numbers.normal(size=(65, 64)), "large too": numbers.normal(size=(65, 64))}
    tree = {name: jnp.asarray(leaf, jnp.float32) for name, leaf in leaves.items()}
    tree |= {f"half{i}": jnp.asarray(numbers.normal(size=(3, 4)), jnp.bfloat16) for i in range(2)}
    tree |= {f"complex{i}": jnp.asarray(numbers.normal(size=(3, 4)), jnp.complex64) for i in range(2)}
    return {"layers": tree, "empty": {}, "rows": [jnp.zeros((0, 3)), jnp.zeros((0, 3))]}


def descend(optimizer, step, params, grads):
    """The parameters and updates of every step."""
    state, path = optimizer.init(params), []
    for g in grads:
        updates, state = step(optimizer.update)(g, state, params)
        params = jo.apply_updates(params, updates)
        path.append((updates, params))
    return path


def assert_identical(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape, path
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.factory.__name__)
def test_equal_leaf_by_leaf_bit_for_bit(rule):
    params, grads = mixed(0), [mixed(i) for i in range(1, STEPS + 1)]
    assert_identical(*(descend(o, jax.jit, params, grads) for o in (jo.stack_leaves(rule, size=3), rule)))


@pytest.mark.parametrize("rule", RULES[:2], ids=lambda rule: rule.factory.__name__)
def test_equal_without_jit_and_in_one_jitted_step(rule):
    params, grads = mixed(0), [mixed(i) for i in range(1, STEPS + 1)]
    few = [{name: tree["layers"][name] for name in ("w0", "w1", "w2")} for tree in (params, *grads[:2])]
    assert_identical(*(descend(o, lambda f: f, few[0], few[1:]) for o in (jo.stack_leaves(rule), rule)))

    def after(optimizer):
        @jax.jit
        def step(params, state, g):
            updates, state = optimizer.update(g, state, params)
            return jo.apply_updates(params, updates), state

        p, state = params, optimizer.init(params)
        for g in grads:
            p, state = step(p, state, g)
        return p

    assert_identical(after(jo.stack_leaves(rule)), after(rule))


def test_clipping_outside_is_bit_for_bit_and_inside_up_to_rounding():
    params, grads = mixed(0), [mixed(i) for i in range(1, STEPS + 1)]
    clip, adamw = jo.clip_by_global_norm(1.0), jo.adamw(1e-2)
    want = descend(jo.chain(clip, adamw), jax.jit, params, grads)
    assert_identical(descend(jo.chain(clip, jo.stack_leaves(adamw)), jax.jit, params, grads), want)
    inside = descend(jo.stack_leaves(jo.chain(clip, adamw)), jax.jit, params, grads)
    for a, b in zip(jax.tree.leaves(inside), jax.tree.leaves(want), strict=True):
        rounding = 1e-2 if a.dtype == "bfloat16" else 1e-5
        np.testing.assert_allclose(np.complex64(a), np.complex64(b), rtol=rounding, atol=rounding * 1e-2)


def test_float64_leaves_are_not_stacked_with_float32(x64):
    params = {f"{d}{i}": jnp.arange(6.0, dtype=d) + i for i in range(3) for d in ("float32", "float64")}
    grads = [jax.tree.map(lambda p, k=k: jnp.cos(p + k), params) for k in range(STEPS)]
    state = jo.stack_leaves(jo.adam(1e-2)).init(params).inner_state[0]
    assert [(s.shape, s.dtype.name) for s in state.mu.stacks] == [((18,), "float32"), ((18,), "float64")]
    assert_identical(
        descend(jo.stack_leaves(jo.adam(1e-2)), jax.jit, params, grads),
        descend(jo.adam(1e-2), jax.jit, params, grads),
    )


def test_state_is_stacked_and_large_or_lonely_leaves_stand_alone():
    params = {f"w{i}": jnp.ones((4, 5)) for i in range(6)}
    params |= {"big": jnp.ones((9, 9)), "big too": jnp.ones((9, 9)), "lonely": jnp.ones(3)}
    params |= {"scalar": jnp.ones(()), "scalar too": jnp.ones(())}
    state = jo.stack_leaves(jo.adam(1e-3), size=4, max_values=80).init(params)
    assert isinstance(state, jo.View)
    adam = state.inner_state[0]
    assert isinstance(adam, optax.ScaleByAdamState)
    assert [s.shape for s in adam.mu.stacks] == [(12, 5), (12, 5)]
    assert [s.shape for s in adam.nu.alone] == [(9, 9), (9, 9), (3,), (), ()]


@pytest.mark.parametrize(
    ("leaves", "size", "lengths"),
    [
        (400, 20, [20] * 20),
        (30, 20, [15, 15]),
        (17, 20, [17]),
        (23, 20, [11, 11]),  # one stands alone
        (7, 4, [3, 3]),
        (9, 4, [3, 3, 3]),
        (3, 2, [2]),
        (1, 8, []),
    ],
)
def test_stacks_are_as_long_as_leaves_the_fewest_over(leaves, size, lengths):
    state = jo.stack_leaves(jo.sgd(0.1, momentum=0.9), size).init([jnp.ones(2)] * leaves)
    trace = state.inner_state[0].trace
    assert [len(s) // 2 for s in trace.stacks] == lengths
    assert sum(lengths) + len(trace.alone) == leaves


def test_fewer_loops():
    """Operations in the compiled program are counted, not seconds."""
    params = [jnp.ones((8, 8)) for _ in range(40)]

    def loops(optimizer):
        text = jax.jit(optimizer.update).lower(params, optimizer.init(params), params).compile().as_text()
        return text[text.index("ENTRY") :].count(" fusion(")

    assert loops(jo.stack_leaves(jo.adamw(1e-3))) <= 0.5 * loops(jo.adamw(1e-3))


def test_without_params():
    params = [jnp.ones(3), jnp.ones(3)]
    optimizer = jo.stack_leaves(jo.adam(1e-2))
    updates, _ = optimizer.update(params, optimizer.init(params))
    assert_identical(updates, jo.adam(1e-2).update(params, jo.adam(1e-2).init(params))[0])


@pytest.mark.parametrize("axis", [None, 0])
def test_vmap_over_hyperparameters_and_over_trees(axis):
    params, grads = ({f"w{i}": tree["layers"][f"w{i}"] for i in range(3)} for tree in (mixed(0), mixed(1)))
    if axis == 0:
        params, grads = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), (params, grads))

    def updates(wrap):
        def update(rate, params, grads):
            optimizer = wrap(jo.adamw(rate))
            return optimizer.update(grads, optimizer.init(params), params)[0]

        return jax.jit(jax.vmap(update, (0, axis, axis)))(jnp.array([1e-3, 1e-2]), params, grads)

    assert_identical(updates(jo.stack_leaves), updates(lambda inner: inner))


def test_gradient_through_an_update_is_that_of_the_inner_rule():
    params = {f"w{i}": jnp.full((2, 2), 0.1 * i) for i in range(4)}

    def moved(optimizer):
        updates, _ = optimizer.update(jax.tree.map(jnp.sin, params), optimizer.init(params), params)
        return sum(jnp.sum(u**2) for u in jax.tree.leaves(updates))

    rule = jo.adamw(1e-2)
    got = jax.jit(jax.grad(lambda rule: moved(jo.stack_leaves(rule))))(rule)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(jax.jit(jax.grad(moved))(rule)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_learning_rate_can_be_read_from_the_state():
    params = [jnp.ones(3), jnp.ones(3)]
    optimizer = jo.stack_leaves(jo.adamw(SCHEDULE))
    _, state = optimizer.update(params, optimizer.init(params), params)
    assert jo.hyperparameters(optimizer, state)["stack_leaves.adamw.learning_rate"] == SCHEDULE(1)
    assert jo.parse(repr(optimizer)) == optimizer


def test_inside_of_routing():
    params = {f"{name}{i}": jnp.full(s, 0.5) for i in range(3) for name, s in (("w", (2, 2)), ("b", (2,)))}
    labels = jo.by_path({"b*": "plain"}, default="decayed")

    def optimizer(wrap):
        return jo.partition({"plain": wrap(jo.adam(1e-2)), "decayed": wrap(jo.adamw(1e-2))}, labels)

    assert_identical(
        descend(optimizer(jo.stack_leaves), jax.jit, params, [params] * STEPS),
        descend(optimizer(lambda inner: inner), jax.jit, params, [params] * STEPS),
    )


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: jo.lamb(1e-3), "scale_by_trust_ratio"),
        (lambda: jo.lars(1e-3), "scale_by_trust_ratio"),
        (lambda: jo.lars(1e-3, trust_ratio_mask={"w": True}), "masked"),
        (lambda: jo.novograd(1e-3), "scale_by_novograd"),
        (lambda: jo.noisy_sgd(1e-3), "add_noise"),
        (lambda: jo.centralize(), "centralize"),
        (lambda: jo.clip_by_block_rms(1.0), "clip_by_block_rms"),
        (lambda: jo.adaptive_grad_clip(0.1), "adaptive_grad_clip"),
        (lambda: jo.chain(jo.adam(1e-3), jo.freeze({"w": True})), "freeze"),
        (lambda: jo.adamw(1e-3, mask=jo.by_path({"*b": False}, default=True)), "masked"),
        (lambda: jo.accumulate(jo.lamb(1e-3), 2), "scale_by_trust_ratio"),
        (lambda: jo.partition({"a": jo.sgd(0.1)}, "a"), "partition"),
        (lambda: jo.lift(optax.adafactor)(1e-3), "adafactor"),
        (lambda: optax.adam(1e-3), "from_optax"),
    ],
)
def test_rules_that_may_look_at_leaves_are_refused(make, named):
    with pytest.raises(ValueError, match=rf"stack_leaves: .*{named}"):
        jo.stack_leaves(make())


def test_unknown_rules_pass_on_a_promise():
    params = [jnp.ones(3), 2 * jnp.ones(3)]
    rule = jo.lift(optax.scale_by_lion)()
    optimizer = jo.stack_leaves(rule, elementwise=True)
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    assert_identical(updates, rule.update(params, rule.init(params), params)[0])


@pytest.mark.parametrize("arguments", [{"size": 1}, {"size": 2.5}, {"max_values": 0}, {"size": True}])
def test_bad_sizes_are_refused(arguments):
    with pytest.raises(ValueError, match=f"stack_leaves: {next(iter(arguments))} must be an int"):
        jo.stack_leaves(jo.adam(1e-3), **arguments)


def test_state_for_other_shapes_is_refused():
    optimizer = jo.stack_leaves(jo.adam(1e-3))
    state = optimizer.init([jnp.ones(3), jnp.ones(3)])
    with pytest.raises(ValueError, match="state is not one of this optimizer"):
        optimizer.update([jnp.ones(4), jnp.ones(4)], state, [jnp.ones(4), jnp.ones(4)])
