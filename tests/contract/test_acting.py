"""What a rule acts on, for every row of the table: coordinates permuted, leaves joined, and each leaf alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_lite as jo
from tests.contract.table import TRANSFORMATIONS, assert_close, compiled, problem, tolerance
from tests.each import for_each

# Rows that are not "coordinate". What is lifted, or is somebody's own function, has promised nothing.
LEAF = {
    *("scale_by_novograd", "scale_by_trust_ratio", "centralize", "clip_by_block_rms", "adaptive_grad_clip"),
    *("adaptive_grad_clip_coordinates", "lamb", "lars", "novograd", "cautious", "as_matrices", "muon", "muon_masked"),
    *("adafactor", "adafactor_torch", "adafactor_whole", "scale_by_factored_rms", "scale_by_factored_rms_torch"),
    *("scale_by_factored_rms_not", "scale_by_param_block_rms"),
    *("scale_by_neuron_rms", "normuon", "normuon_kept"),
    *("quantize_state", "quantize_state_off", "kahan_summation", "master_weights"),
}
MATRICES = {"orthogonalize", "orthogonalize_rows", "scale_by_shape", "stack_matrices"} | {
    *("scale_by_soap", "scale_by_soap_one_side", "soap"),
    *("scale_by_shampoo", "shampoo", "shampoo_sum", "scale_by_kron", "psgd_kron", "psgd_kron_key"),
}
# Of these, what would give the same numbers when joined.
PROMISE_LESS = {
    "scale_by_factored_rms_not",
    "adaptive_grad_clip_coordinates",
    "quantize_state_off",
    "kahan_summation",
    "master_weights",
}
TREE = {
    *("stateless", "chain_of_chains", "add_noise", "add_noise_key", "noisy_sgd", "noisy_sgd_key"),
    *("stack_leaves_lifted", "lifted", "stochastic_rounding"),
}
ROUTES = {
    *("masked", "masked_by_function", "masked_by_path", "freeze", "partition", "partition_by_path", "nested"),
    *("add_decayed_weights_masked", "proximal_l1_masked", "proximal_l2_masked", "adadelta", "adamw_masked", "nadamw"),
    *("lion", "lamb", "lars", "adan", "ademamix", "simplified_ademamix", "dog", "dowg"),
    *(
        "muon",
        "muon_masked",
        "normuon",
        "normuon_kept",
        "soap",
        "shampoo",
        "psgd_kron",
        "psgd_kron_key",
        "add_cautious_decay_masked",
    ),
    "adafactor",
}


def test_rows_declare_what_they_act_on():
    for name, optimizer in TRANSFORMATIONS.items():
        kinds = {"leaf": LEAF, "tree": TREE, "matrix": MATRICES}
        wanted = next((kind for kind, names in kinds.items() if name in names), "coordinate")
        assert (optimizer.acts_on, optimizer.routes) == (wanted, name in ROUTES), name


def in_order(tree, orders, lead=0):
    """Each leaf with its coordinates in another order; `lead` axes before them stay."""

    def leaf(x, order):
        return x.reshape(*x.shape[:lead], -1)[..., order].reshape(x.shape)

    return jax.tree.map(leaf, tree, orders)


def joined(tree, lead=0):
    """One vector of all leaves."""
    return {"w": jnp.concatenate([x.reshape(*x.shape[:lead], -1) for x in jax.tree.leaves(tree)], axis=-1)}


@pytest.mark.parametrize("name", [n for n in TRANSFORMATIONS if n not in LEAF | TREE | MATRICES])
def test_coordinates_may_be_in_any_order_and_any_leaf(name):
    """Permuted within their leaves, updates are permuted; joined to one vector they are joined, unless it routes."""
    optimizer = TRANSFORMATIONS[name]
    params, grads = problem(name)
    orders = jax.tree.map(lambda p: np.random.default_rng(p.size).permutation(p.size), params)
    run = lambda params, grads: compiled(optimizer, params, grads)[:2]
    updates, new_params = run(params, grads)
    permuted = run(in_order(params, orders), in_order(grads, orders, 1))
    assert_close(permuted, (in_order(updates, orders, 1), in_order(new_params, orders)), tolerance(optimizer), "order")
    if not optimizer.routes:
        together = run(joined(params), joined(grads, 1))
        assert_close(together, (joined(updates, 1), joined(new_params)), tolerance(optimizer), "joined")


@pytest.mark.parametrize("name", sorted(LEAF - ROUTES))
def test_a_leaf_may_be_alone(name):
    """Rules that act on leaves give each the same numbers without the others, and other numbers when joined."""
    optimizer = TRANSFORMATIONS[name]
    params, grads = problem(name)
    run = lambda params, grads: compiled(optimizer, params, grads)[0]
    updates = run(params, grads)
    for key in params:
        alone = run({key: params[key]}, {key: grads[key]})
        assert_close(alone, {key: updates[key]}, tolerance(optimizer), key)
    if name not in PROMISE_LESS:
        together = run(joined(params), joined(grads, 1))["w"]
        assert not np.allclose(together, joined(updates, 1)["w"], 1e-3), "it acts on coordinates"


@for_each(sorted(MATRICES - ROUTES))
def test_matrices_may_be_a_batch(name):
    """Rules that act on matrices give each matrix of a batch the numbers that it has alone, and no other ones."""
    optimizer = TRANSFORMATIONS[name]
    random = np.random.default_rng(5)
    params, grads = ({"w": jnp.asarray(random.normal(size=(*n, 2, 2, 3)), jnp.float32)} for n in ((), (6,)))
    run = lambda params, grads: compiled(optimizer, params, grads)[0]
    updates = run(params, grads)["w"]
    both = run(*({str(i): x["w"][..., i, :, :] for i in range(2)} for x in (params, grads)))
    for i in range(2):
        assert_close(both[str(i)], updates[:, i], tolerance(optimizer), name)


def test_what_is_held_is_no_better_than_the_weakest():
    @jo.transformation
    def silent():
        return lambda params: (), lambda u, s, p=None: (u, s)

    @jo.transformation(acts_on="matrix")
    def by_matrix(rate: jo.Scalar = 1.0):
        return lambda params: (), lambda u, s, p=None: (u, s)

    @jo.transformation
    def recipe(rate: jo.Scalar):
        return jo.chain(by_matrix(rate), jo.scale(-rate))

    @jo.transformation(acts_on="leaf")
    def around(inner: jo.GradientTransformation):
        return inner

    assert silent().acts_on == "tree" and by_matrix().acts_on == "matrix" == recipe(0.1).acts_on
    assert jo.chain(jo.adam(0.1), recipe(0.1)).acts_on == "matrix"
    assert around(jo.adam(0.1)).acts_on == "leaf" and around(silent()).acts_on == "tree"
    assert jo.accumulate(jo.lookahead(jo.chain(jo.lamb(0.1)), 2, 0.5), 2).acts_on == "leaf"
    assert jo.chain(jo.adamw(0.1, mask=True)).routes is False and jo.chain(jo.adamw(0.1, mask={"w": True})).routes
    plain = jo.lift(optax.scale)
    assert plain(1.0).acts_on == "tree" and jo.chain(optax.scale(1.0)).acts_on == "tree"
    known = jo.lift(optax.scale, acts_on="coordinate")(0.5)
    assert known.acts_on == "coordinate" and jo.parse(repr(known)) == known != plain(0.5)
    jo.stack_leaves(jo.chain(jo.adam(0.1), known))
    for refused, named in (
        (plain(1.0), "scale"),
        (recipe(0.1), "by_matrix"),
        (jo.adamw(0.1, mask={"w": True}), "add_dec"),
    ):
        with pytest.raises(ValueError, match=f"the inner rule contains {named}"):
            jo.stack_leaves(jo.chain(jo.adam(0.1), refused))
    for make in (lambda word: jo.transformation(acts_on=word), lambda word: jo.lift(optax.scale, acts_on=word)):
        with pytest.raises(ValueError, match="acts_on must be one of 'coordinate', 'matrix', 'leaf', 'tree'"):
            make("elementwise")(lambda: None)
