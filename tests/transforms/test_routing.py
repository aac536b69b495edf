import enum
import pickle
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_lite as jo
from jaxopt_lite import tree

PARAMS = {
    "layers": [{"w": jnp.ones((2, 3)), "b": jnp.ones(3)}, {"w": jnp.ones((3, 1)), "b": jnp.ones(1)}],
    "head": {"scale": jnp.array(2.0)},
}
TWICE, HALF = jo.scale(2.0), jo.scale(0.5)


def routed(optimizer, grads=PARAMS, **extra):
    """The factor by which each leaf was scaled, by path."""
    found, _ = optimizer.update(grads, optimizer.init(grads), grads, **extra)
    return by_name(jax.tree.map(lambda u, g: float(jnp.ravel(u / g)[0]), found, grads))


def by_name(leaves):
    return dict(zip(jax.tree.leaves(tree.paths(leaves)), jax.tree.leaves(leaves), strict=True))


def is_bias(params):
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "b", params)


# --- Masks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mask",
    [
        is_bias,
        jo.by_path({"*/b": True}, default=False),
        {"layers": [{"w": False, "b": True}] * 2, "head": False},
    ],
    ids=["function", "paths", "prefix"],
)
def test_what_is_masked_out_passes_through(mask):
    assert routed(jo.masked(TWICE, mask)) == {
        "head/scale": 1,
        "layers/0/b": 2,
        "layers/0/w": 1,
        "layers/1/b": 2,
        "layers/1/w": 1,
    }


def test_one_bool_is_a_mask_of_everything():
    assert set(routed(jo.masked(TWICE, True)).values()) == {2}
    assert set(routed(jo.masked(TWICE, False)).values()) == {1}
    assert set(routed(jo.masked(TWICE, np.bool_(True))).values()) == {2}


def test_a_masked_rule_keeps_no_state_for_what_it_does_not_see():
    state = jo.masked(jo.scale_by_adam(), is_bias).init(PARAMS)
    assert len(jax.tree.leaves(state.inner_state.mu)) == 2
    assert isinstance(state.inner_state.mu["head"]["scale"], optax.MaskedNode)


def test_a_masked_norm_is_the_norm_of_what_it_sees():
    grads = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([300.0])}
    found, _ = (rule := jo.masked(jo.clip_by_global_norm(1.0), {"a": True, "b": False})).update(grads, rule.init(grads))
    np.testing.assert_allclose(found["a"], [0.6, 0.8], rtol=1e-6)
    assert found["b"] == 300


def test_masks_nest():
    inner = jo.masked(TWICE, lambda p: jax.tree.map(lambda x: x.ndim == 2, p))
    assert routed(jo.masked(inner, {"layers": [True, False], "head": True})) == {
        "head/scale": 1,
        "layers/0/b": 1,
        "layers/0/w": 2,
        "layers/1/b": 1,
        "layers/1/w": 1,
    }


def test_a_frozen_leaf_does_not_move_whatever_its_gradient():
    grads = jax.tree.map(lambda p: jnp.full_like(p, jnp.nan), PARAMS)
    optimizer = jo.chain(jo.sgd(1.0), jo.freeze(jo.by_path({"layers/*": True}, default=False)))
    found, _ = optimizer.update(grads, optimizer.init(PARAMS), PARAMS)
    assert not any(leaf.any() for leaf in jax.tree.leaves(found["layers"])) and jnp.isnan(found["head"]["scale"])
    assert set(routed(jo.freeze(True)).values()) == {0}


class Layer(eqx.Module):
    """A module that takes anything when it is called, as `*args` and defaults do."""

    w: Any
    b: Any

    def __call__(self, *args, **kwargs):
        return True


class Other(eqx.Module):
    """A function of params that is a pytree, but not of their structure."""

    key: str

    def __call__(self, params):
        return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].name == self.key, params)


MODULE = Layer(jnp.full((2, 2), 4.0), jnp.full(2, 4.0))


def factors(optimizer, params=MODULE):
    found, _ = optimizer.update(params, optimizer.init(params), params)
    return [float(jnp.ravel(u / g)[0]) for u, g in zip(*map(jax.tree.leaves, (found, params)), strict=True)]


def test_a_tree_that_can_be_called_is_a_tree():
    """A mask or labels as a module of the class of the parameters, at the root and within, whole and as a prefix."""
    w, halves = Layer(True, False), jo.masked(HALF, Layer(False, True))
    cases = {
        "masked": (jo.masked(TWICE, w), [2, 1]),
        "masked twice": (jo.masked(jo.masked(TWICE, w), w), [2, 1]),
        "chained": (jo.chain(jo.masked(TWICE, w), halves), [2, 0.5]),
        "freeze": (jo.freeze(w), [0, 1]),
        "decay": (jo.add_decayed_weights(0.5, mask=w), [1.5, 1]),
        "adamw": (jo.chain(jo.adamw(1.0, weight_decay=0.5, mask=w), jo.scale(-1.0)), [0.75, 0.25]),
        "lars": (jo.lars(1.0, 0.5, weight_decay_mask=w, trust_ratio_mask=Layer(False, False), momentum=0), [-1.5, -1]),
        "lars ratio": (jo.lars(1.0, 0.0, trust_ratio_mask=w, momentum=0), [-0.001, -1]),
        "proximal": (jo.proximal_l1(1.0, 100.0, mask=w), [-1, 1]),
        "partition": (jo.partition({"a": TWICE, "b": HALF}, Layer("a", "b")), [2, 0.5]),
        "lifted mask": (jo.lift(optax.add_decayed_weights)(0.5, mask=w), [1.5, 1]),
        "lifted labels": (jo.lift(optax.partition)({"a": TWICE, "b": HALF}, Layer("a", "b")), [2, 0.5]),
        "lifted by_path": (jo.lift(optax.add_decayed_weights)(0.5, mask=jo.by_path({"w": True}, False)), [1.5, 1]),
        "a function that is a pytree": (jo.masked(TWICE, Other("w")), [2, 1]),
        "a partial": (jo.masked(TWICE, jax.tree_util.Partial(Other("b"))), [1, 2]),
        "lifted function": (jo.lift(optax.masked)(TWICE, Other("w")), [2, 1]),
    }
    for name, (optimizer, expected) in cases.items():
        np.testing.assert_allclose(factors(optimizer), expected, 1e-5, err_msg=name)
    assert jo.routing_table(Layer("x", "y"), MODULE).split()[-1] == "y"
    tower = Layer(MODULE, Layer(MODULE.b, MODULE.b))
    assert factors(jo.masked(TWICE, Layer(w, True)), tower) == [2, 1, 2, 2]
    assert factors(jo.freeze(Layer(True, Layer(False, True))), tower) == [0, 0, 1, 0]


def test_a_module_of_the_class_of_the_parameters_that_does_not_fit_is_not_called():
    tower = Layer(MODULE, Layer(MODULE.b, MODULE.b))
    for mask in (Layer(Layer(True, None), True), Layer({"w": True}, True)):
        with pytest.raises(ValueError, match="masked: mask does not fit params"):
            jo.masked(TWICE, mask).init(tower)


# --- Labels ---------------------------------------------------------------------------------------

LABELS = jo.by_path({"*/b": "plain", "head/*": "frozen"}, default="decayed")


def test_to_each_leaf_the_rule_of_its_label():
    rules = {"plain": TWICE, "decayed": HALF, "frozen": jo.set_to_zero()}
    assert routed(jo.partition(rules, LABELS)) == {
        "head/scale": 0,
        "layers/0/b": 2,
        "layers/0/w": 0.5,
        "layers/1/b": 2,
        "layers/1/w": 0.5,
    }


@pytest.mark.parametrize(
    "labels", [{"layers": ["a", "b"], "head": "a"}, lambda params: {"layers": ["a", "b"], "head": {"scale": "a"}}]
)
def test_labels_by_prefix_and_by_function(labels):
    found = routed(jo.partition({"a": TWICE, "b": HALF}, labels))
    assert found == {"head/scale": 2, "layers/0/b": 2, "layers/0/w": 2, "layers/1/b": 0.5, "layers/1/w": 0.5}


def test_the_rules_of_a_partition_do_not_see_each_other_s_leaves():
    grads = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([30.0, 40.0])}
    rule = jo.partition({"x": jo.clip_by_global_norm(1.0), "y": jo.adam(0.5)}, {"a": "x", "b": "y"})
    found, state = rule.update(grads, rule.init(grads), grads)
    np.testing.assert_allclose(found["a"], [0.6, 0.8], rtol=1e-6)
    np.testing.assert_allclose(found["b"], -0.5, rtol=1e-5)
    assert set(state.inner_states) == {"x", "y"}


class Group(enum.Enum):
    """Labels that can be called."""

    BODY = 1
    HEAD = 2

    def __call__(self, params):
        return True


@pytest.mark.parametrize(
    "body, head",
    [
        (0, 1),
        (1, "head"),
        (Group.BODY, Group.HEAD),
        (Group.BODY, "head"),
        (("adam", 1), ("adam", 2)),
        (("adam", 1), "adam"),
        (None, "head"),
        (True, 0.5),
        (0.25, 0.5),
        (np.int64(1), np.int64(2)),
        (frozenset("a"), frozenset("b")),
    ],
    ids=str,
)
def test_labels_are_anything_hashable(body, head):
    params = {"w": jnp.ones((2, 2)), "b": jnp.ones(2), "none": None}
    rules = {body: TWICE, head: jo.adam(0.5)}
    optimizer = jo.partition(rules, {"w": body, "b": head, "none": None})
    state = optimizer.init(params)
    found, after = optimizer.update(params, state, params)
    assert (found["w"] == 2).all() and np.allclose(found["b"], -0.5)
    assert jax.tree.structure(after) == jax.tree.structure(state) and after.inner_states[body] is not None
    # a value like others: leaves, paths, text, pickles, whatever the order of the rules
    assert optimizer == jo.partition(dict(reversed(rules.items())), {"w": body, "b": head, "none": None})
    assert pickle.loads(pickle.dumps(optimizer)) == optimizer == jax.tree.map(lambda x: x, optimizer)
    if not isinstance(body, frozenset):
        assert jo.parse(repr(optimizer), names={"Group": Group}) == optimizer
    assert jo.hyperparameters(optimizer, state)[f"partition.{body}.scale.step_size"] == 2
    assert len(jo.hyperparameters(jo.partition(rules, jo.by_path({"b": head}, body)))) == len(
        jax.tree.leaves(optimizer)
    )
    assert (jo.replace(optimizer, {"step_size": 3}).update(params, state, params)[0]["w"] == 3).all()
    for labels in (jo.by_path({"w": body, "b": head}), lambda p: {"w": body, "b": head, "none": None}):
        again = jo.partition(rules, labels)
        assert jax.tree.all(jax.tree.map(jnp.allclose, again.update(params, again.init(params), params)[0], found))
        assert jo.routing_table(again, params) == jo.routing_table(labels, params)
    everything = jo.partition(rules, head)  # one label for all is no function, also where it can be called
    assert np.allclose(everything.update(params, everything.init(params), params)[0]["w"], -0.5)


def test_labels_of_mixed_kinds_under_jit_and_vmap():
    labels = {"w": 1, "b": "a", "c": Group.HEAD}
    rules = jo.arrays(jo.partition({1: TWICE, "a": jo.adam(0.5), Group.HEAD: HALF}, labels))
    params = dict.fromkeys("wbc", jnp.ones(2))

    @jax.jit
    @jax.vmap
    def update(rules):
        return rules.update(params, rules.init(params), params)[0]

    found = update(jax.tree.map(lambda x: jnp.stack([x, x / 2]), rules))
    np.testing.assert_allclose([found[k][:, 0] for k in "wbc"], [[2, 1], [-0.5, -0.25], [0.5, 0.25]], 1e-5)


def test_a_rule_whose_label_nobody_has_rests():
    assert set(routed(jo.partition({"a": TWICE, "b": HALF}, "a")).values()) == {2}


def test_params_and_extra_arguments_reach_the_rules():
    got = []

    @jo.transformation
    def rule():
        def update(updates, state, params=None, *, value):
            got.append(value)
            return params, state

        return lambda params: (), update

    routed(jo.partition({"a": rule(), "b": jo.identity()}, "a"), value=7.0)
    routed(jo.masked(rule(), True), value=8.0)
    assert got == [7.0, 8.0]


# --- Paths ----------------------------------------------------------------------------------------


def labels(patterns, default=None):
    return by_name(jo.by_path(patterns, default)(PARAMS))


def test_globs_are_of_the_whole_path():
    assert labels({"layers/?/w": 1}, 0)["layers/1/w"] == 1
    assert [path for path, label in labels({"layers/[0]/*": 1}, 0).items() if label] == ["layers/0/b", "layers/0/w"]
    with pytest.raises(ValueError, match="matches no leaf"):
        labels({"w": 1}, 0)


@pytest.mark.parametrize(
    "pattern, selected",
    [
        ("layer[0]/w", ["layer[0]/w"]),
        ("*[0]/*", ["layer[0]/w"]),
        ("layer[[]0]/w", ["layer[0]/w"]),
        ("layer[01]/w", ["layer0/w"]),
        ("layer[!1]/w", ["layer0/w"]),
        (r"re:layer\[0\]", ["layer[0]/w"]),
        ("layer[*]/w", ["layer[0]/w"]),
    ],
)
def test_brackets_are_themselves_where_a_path_has_them_and_else_a_set(pattern, selected):
    params = {"layer[0]": {"w": 1.0}, "layer0": {"w": 2.0}, "other": 3.0}
    chosen = by_name(jo.by_path({pattern: True}, default=False)(params))
    assert [path for path, label in chosen.items() if label] == selected


def test_keys_may_hold_slashes_while_paths_differ():
    params = {"mlp/~/linear": {"w": 1.0, "b": 2.0}, "mlp": {"w": 3.0}}
    chosen = by_name(jo.by_path({"mlp/~/*/w": 1, "mlp/w": 2}, default=0)(params))
    assert chosen == {"mlp/w": 2, "mlp/~/linear/b": 0, "mlp/~/linear/w": 1}


def test_regular_expressions_are_searched_anywhere():
    assert labels({"re:/[wb]$": 1}, 0)["head/scale"] == 0
    assert labels({r"re:\d": 1}, 0) == labels({"layers/*": 1}, 0)


def test_the_first_pattern_that_matches_decides():
    assert labels({"*/b": 1, "layers/*": 2, "*": 3}) == {
        "head/scale": 3,
        "layers/0/b": 1,
        "layers/0/w": 2,
        "layers/1/b": 1,
        "layers/1/w": 2,
    }


def test_a_labelling_is_a_value():
    assert jo.by_path({"*/b": "x"}, "y") == jo.by_path({"*/b": "x"}, "y") != jo.by_path({"*/w": "x"}, "y")
    assert jo.parse(repr(jo.masked(TWICE, LABELS))) == jo.masked(TWICE, LABELS)


def test_false_is_a_label_and_none_is_no_default():
    assert labels({"*/b": True}, False)["head/scale"] is False
    with pytest.raises(ValueError, match="add one, or give default="):
        labels({"*/b": True})


# --- The table ------------------------------------------------------------------------------------

TABLE = """\
leaf        shape   values  label
head/scale  ()      1       frozen
layers/0/b  (3,)    3       plain
layers/0/w  (2, 3)  6       decayed
layers/1/b  (1,)    1       plain
layers/1/w  (3, 1)  3       decayed"""


def test_the_table_says_which_leaf_got_what():
    rules = {"plain": TWICE, "decayed": HALF, "frozen": jo.set_to_zero()}
    assert jo.routing_table(LABELS, PARAMS) == TABLE
    assert jo.routing_table(jo.partition(rules, LABELS), PARAMS) == TABLE
    assert jo.routing_table(LABELS(PARAMS), PARAMS) == TABLE


def test_the_table_of_a_mask_and_of_a_large_leaf():
    table = jo.routing_table(jo.freeze({"a": True, "b": False}), {"a": jnp.ones((30, 100)), "b": jnp.ones(2)})
    assert table.splitlines()[1:] == ["a     (30, 100)  3,000   True", "b     (2,)       2       False"]


def test_groups_are_a_partition_of_variants():
    """PyTorch's parameter groups in one line: what decides, what each group has, and that it can be changed."""
    params = {"body": {"w": jnp.ones(2), "b": jnp.ones(2)}, "head": {"w": jnp.ones(2), "b": jnp.ones(2)}}
    grads = jax.tree.map(jnp.ones_like, params)
    given = {"head": {"learning_rate": 0.5}, "*/b": {"learning_rate": 0.3, "momentum": None}, "body/w": jo.sgd(0.0)}
    optimizer = jo.groups(given, jo.sgd(0.1, momentum=0.9))
    updates, state = optimizer.update(grads, optimizer.init(params), params)
    assert jax.tree.map(lambda u: float(u[0]), updates) == {
        "body": {"b": pytest.approx(-0.3), "w": 0.0},
        "head": {"b": -0.5, "w": -0.5},
    }
    assert len(jax.tree.leaves(state)) == 2  # the momentum of the head alone
    names = jo.hyperparameters(optimizer)
    assert names["partition.head.sgd.learning_rate"] == 0.5 and names["partition.rest.sgd.learning_rate"] == 0.1
    rates = jnp.array([0.2, 0.4])
    steps = jax.vmap(
        lambda rate: jo.replace(optimizer, {"head.sgd.learning_rate": rate}).update(grads, state, params)[0]
    )(rates)
    np.testing.assert_allclose(steps["head"]["w"][:, 0], -1.9 * rates, rtol=1e-6)
    assert jo.parse(repr(optimizer)) == optimizer
    jo.groups({"head": {"learning_rate": 1.0}}, jo.chain(jo.clip(1.0), jo.sgd(0.1))).init(params)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": {"lr": 0.5}}, r"groups: 'head': replace: .*'lr'"),
        ({"head": {"learning_rate": -1.0}}, r"groups: 'head': .*learning_rate must be"),
        ({"head": 0.5}, r"groups: 'head' must have a dict of arguments to change.*got 0.5"),
        ({"rest": {}}, r"groups: 'rest' is the group of what no pattern matches"),
        ([("head", {})], r"groups: changes must be a dict of pattern"),
        ({"tail": {}}, r"by_path: the pattern 'tail' matches no leaf; paths are head/w"),
    ],
)
def test_what_is_no_group(changes, message):
    with pytest.raises((TypeError, ValueError), match=message):
        jo.groups(changes, jo.sgd(0.1)).init({"head": {"w": jnp.ones(2)}})


def test_a_branch_is_a_pattern():
    params = {"head": {"w": 1.0, "deep": {"b": 1.0}}, "headroom": 1.0, "rows[0]": [1.0, 1.0]}
    labels = jo.by_path({"head": "h", "rows[0]": "r"}, default="other")(params)
    assert labels == {"head": {"w": "h", "deep": {"b": "h"}}, "headroom": "other", "rows[0]": ["r", "r"]}
