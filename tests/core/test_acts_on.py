"""What a transformation acts on, for random chains and wrappers of rules whose own answer is known."""

import random

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import pytest

import jaxopt_lite as jo
from jaxopt_lite.core.transformation import ACTS_ON, deciding
from tests.contract.table import assert_close
from tests.quick import quick_jit

MATRIX = {"w": True, "b": False, "c": True}


@jo.transformation(acts_on="matrix")
def by_matrix(rate: jo.Scalar = 1.0):
    """A rule that acts on matrices, of which the package has none yet."""
    return lambda params: (), lambda updates, state, params=None: (updates, state)


# (value, what it acts on, whether it routes) of rules and recipes that hold no others.
RULES = [
    *((rule, "coordinate", False) for rule in (jo.scale(0.5), jo.trace(0.8), jo.clip_by_global_norm(1.0))),
    *((recipe, "coordinate", False) for recipe in (jo.adam(0.1), jo.adamw(0.1, weight_decay=0.1, mask=True))),
    (jo.adamw(0.1, weight_decay=0.1, mask=MATRIX), "coordinate", True),
    (jo.freeze(MATRIX), "coordinate", True),
    (by_matrix(), "matrix", False),
    (jo.centralize(), "leaf", False),
    (jo.lamb(0.1), "leaf", False),
    (jo.lamb(0.1, mask=MATRIX), "leaf", True),
    (jo.add_noise(0.1, 0.5), "tree", False),
]


def weakest(words):
    return max(words, key=ACTS_ON.index)


def wrapped(inner):
    """The strategies of what holds one or several others."""
    around = st.sampled_from(
        [
            (lambda rule: jo.accumulate(rule, 2), False),
            (lambda rule: jo.lookahead(rule, 2, 0.5), False),
            (jo.skip_not_finite, False),
            (lambda rule: jo.masked(rule, True), False),
            (lambda rule: jo.masked(rule, MATRIX), True),
        ]
    )
    one = st.tuples(around, inner).map(lambda x: (x[0][0](x[1][0]), x[1][1], x[0][1] or x[1][2]))
    several = st.lists(inner, min_size=1, max_size=4)
    chains = several.map(
        lambda links: (jo.chain(*(v for v, _, _ in links)), weakest(w for _, w, _ in links), any(r for *_, r in links))
    )
    partitions = st.tuples(inner, inner).map(
        lambda pair: (
            jo.partition({"a": pair[0][0], "b": pair[1][0]}, {"w": "a", "b": "b", "c": "a"}),
            weakest(w for _, w, _ in pair),
            True,
        )
    )
    return st.one_of(one, chains, partitions)


ANY = st.recursive(st.sampled_from(RULES), wrapped, max_leaves=6)


@hypothesis.settings(max_examples=60)
@hypothesis.given(ANY)
def test_it_is_the_weakest_of_all_that_is_held(known):
    """And it routes where any part routes; both are read from arguments alone, so text and arrays keep them."""
    value, acts_on, routes = known
    assert (value.acts_on, value.routes) == (acts_on, routes)
    for same in (jo.arrays(value), jo.parse(repr(value), names={"by_matrix": by_matrix})):
        assert (same.acts_on, same.routes) == (acts_on, routes)


@hypothesis.settings(max_examples=60)
@hypothesis.given(st.lists(ANY, min_size=2, max_size=4), st.randoms(use_true_random=False))
def test_the_order_and_the_nesting_of_links_do_not_matter(known, order: random.Random):
    links = [value for value, _, _ in known]
    flat = jo.chain(*links)
    cut, mixed = order.randrange(1, len(links)), order.sample(links, len(links))
    rules = sorted(repr(rule) for link in links for rule in deciding(link))
    for other in (jo.chain(*mixed), jo.chain(jo.chain(*links[:cut]), *links[cut:]), jo.chain(links[0], flat)):
        assert (other.acts_on, other.routes) == (flat.acts_on, flat.routes)
    found = [repr(rule) for rule in deciding(jo.chain(*mixed)) if rule.factory is not jo.chain]
    assert sorted(found) == [rule for rule in rules if not rule.startswith("chain(")]


@hypothesis.settings(max_examples=60)
@hypothesis.given(ANY)
def test_a_link_more_never_makes_it_stronger(known):
    value, acts_on, _ = known
    for rule, own, _ in RULES:
        assert jo.chain(value, rule).acts_on == weakest((acts_on, own))


@hypothesis.settings(max_examples=60)
@hypothesis.given(ANY)
def test_leaves_are_stacked_where_coordinates_are_all_that_counts_and_only_there(known):
    value, acts_on, routes = known
    if acts_on == "coordinate" and not routes:
        assert jo.stack_leaves(value).acts_on == "coordinate"
    else:
        with pytest.raises(ValueError, match="the inner rule contains"):
            jo.stack_leaves(value)


PLAIN = st.recursive(st.sampled_from([rule for rule in RULES if rule[1] == "coordinate" and not rule[2]]), wrapped)


@hypothesis.settings(max_examples=10)
@hypothesis.given(PLAIN.filter(lambda known: known[1] == "coordinate" and not known[2]))
def test_what_acts_on_coordinates_gives_the_same_numbers_in_stacks(known):
    """The declaration is true of chains and wrappers too, not of single rules alone."""
    value, _, _ = known
    params = {"w": jnp.arange(6.0).reshape(2, 3), "b": -jnp.ones((2, 3)), "c": jnp.arange(4.0)}
    grads = [jax.tree.map(lambda p, t=t: jnp.sin(p + t), params) for t in range(2)]

    def two_steps(rule):
        state, path = rule.init(params), []
        for g in grads:
            updates, state = rule.update(g, state, params)
            path.append(updates)
        return path

    stacked, alone = quick_jit(lambda: (two_steps(jo.stack_leaves(value)), two_steps(value)))()
    assert_close(stacked, alone, 1e-6)
