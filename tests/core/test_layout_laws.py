"""Layouts of states for random trees of parameters: every number has its place, and the place is the right one."""

import collections

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_lite as jo
from tests.core.test_layout import fits

# Nests of dicts, lists and tuples of small arrays, of few shapes: most trees have leaves to stack, and axes to confuse.
SHAPES = st.sampled_from([(), (1,), (3,), (2, 3), (3, 3), (3, 1, 2)]).map(lambda shape: np.zeros(shape, np.float32))
TREES = st.recursive(
    SHAPES,
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from("abcd"), inner, min_size=2, max_size=4),
        st.lists(inner, min_size=1, max_size=5),
        st.tuples(inner, inner),
    ),
    max_leaves=8,
)

# Rules of which each number of the state belongs to one parameter, and how many numbers they keep for each.
RULES = {
    "trace": (jo.trace(0.8), 1),
    "adam": (jo.adam(0.1), 2),
    "chain": (jo.chain(jo.clip_by_global_norm(1.0), jo.adamw(0.1), jo.trace(0.9)), 3),
    "recipes in wrappers": (jo.accumulate(jo.lookahead(jo.sgd(0.1, momentum=0.8), 2, 0.5), 2), 3),
    "average": (jo.chain(jo.adan(0.1), jo.ema_params(0.9)), 5),
}


def places(optimizer, params):
    """(key path, place, leaf) of each leaf of the state."""
    layout, state = jo.state_layout(optimizer, params), jax.eval_shape(optimizer.init, params)
    assert jax.tree.structure(layout) == jax.tree.structure(state)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    return list(zip(paths, jax.tree.leaves(layout), jax.tree.leaves(state), strict=True))


def held(optimizer, params):
    """How often each parameter has a place in the state."""
    return collections.Counter(p for _, place, _ in places(optimizer, params) for p in place.params)


def paths_of(params):
    return [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]


def labelled(params, labels, data):
    """A tree of labels, one drawn for each leaf."""
    return jax.tree.map(lambda _: data.draw(st.sampled_from(labels)), params)


@hypothesis.settings(max_examples=40)
@hypothesis.given(TREES, st.sampled_from(sorted(RULES)))
def test_every_number_of_a_state_has_its_place(params, name):
    """Floats belong to one parameter each, as long along every axis; what belongs to none is a count."""
    optimizer, times = RULES[name]
    for path, place, leaf in places(optimizer, params):
        assert place.sure and fits(place, leaf, params), (path, place, leaf)
        is_count = leaf.shape == () and not jnp.issubdtype(leaf.dtype, jnp.inexact)
        assert len(place.params) == (0 if is_count else 1), (path, place, leaf)
    assert held(optimizer, params) == {path: times for path in paths_of(params)}


@hypothesis.settings(max_examples=40)
@hypothesis.given(TREES, st.sampled_from(sorted(set(RULES) - {"average"})))
def test_stacks_hold_the_same_parameters_as_often(params, name):
    optimizer, _ = RULES[name]
    stacked = jo.stack_leaves(optimizer, 3, elementwise=True)
    assert held(stacked, params) == held(optimizer, params)
    for path, place, leaf in places(stacked, params):
        assert place.sure and fits(place, leaf, params), (path, place, leaf)


@hypothesis.settings(max_examples=40)
@hypothesis.given(TREES, st.sampled_from(sorted(RULES)), st.sampled_from(sorted(RULES)), st.data())
def test_a_mask_and_labels_divide_the_parameters(params, one, other, data):
    """Each parameter has its places in the rule of its label alone, and none in a rule that is masked for it."""
    (a, times_a), (b, times_b) = RULES[one], RULES[other]
    labels = labelled(params, "ab", data)
    wanted = {
        path: {"a": times_a, "b": times_b}[label] for path, label in zip(paths_of(params), jax.tree.leaves(labels))
    }
    assert held(jo.partition({"a": a, "b": b}, labels), params) == wanted
    mask = jax.tree.map(lambda label: label == "a", labels)
    assert held(jo.masked(a, mask), params) == {path: times_a for path, n in zip(wanted, jax.tree.leaves(mask)) if n}


def wrappers(params, data):
    """Momentum in all sorts of places, whose state after the first update is the gradient itself."""
    labels = labelled(params, "ab", data)
    momentum = jo.trace(0.8)
    return [
        jo.chain(jo.identity(), momentum),
        jo.skip_not_finite(momentum),
        jo.masked(momentum, jax.tree.map(lambda label: label == "a", labels)),
        jo.partition({"a": momentum, "b": jo.chain(momentum)}, labels),
        jo.stack_leaves(momentum, 3),
        jo.stack_leaves(jo.chain(jo.skip_not_finite(momentum), momentum), 2),
    ]


@hypothesis.settings(max_examples=15)
@hypothesis.given(TREES, st.data())
def test_the_numbers_are_where_the_layout_says(params, data):
    """Each moment is the gradient, no two numbers of which are equal, put together as its place says."""
    sizes = np.cumsum([0, *(p.size for p in jax.tree.leaves(params))])
    leaves = [
        1.0 + i + np.arange(p.size, dtype=np.float32).reshape(p.shape) for i, p in zip(sizes, jax.tree.leaves(params))
    ]
    grads = jax.tree.structure(params).unflatten([jnp.asarray(leaf) for leaf in leaves])
    of = dict(zip(paths_of(params), leaves, strict=True))
    params = jax.tree.map(jnp.asarray, params)
    for optimizer in wrappers(params, data):
        _, state = optimizer.update(grads, optimizer.init(params), params)
        layout = jo.state_layout(optimizer, params)
        for place, leaf in zip(jax.tree.leaves(layout), jax.tree.leaves(state), strict=True):
            if place.params:
                parts = [of[path] for path in place.params]
                wanted = np.concatenate(parts) if "concat" in place.axes else parts[0]
                np.testing.assert_array_equal(leaf, wanted, err_msg=repr(optimizer))


def test_stacks_under_labels_hold_the_parameters_of_their_label():
    params = {"x": jnp.zeros(1), "y": jnp.zeros(2), "z": jnp.zeros(2)}
    stacked = jo.stack_leaves(jo.trace(0.8))
    optimizer = jo.partition({"a": jo.identity(), "b": stacked}, {"x": "a", "y": "b", "z": "b"})
    _, y, z = paths_of(params)
    assert held(optimizer, params) == {y: 1, z: 1}
