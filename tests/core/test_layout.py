"""Where the leaves of a state belong: found for every row of the table, and unsure where it cannot be known."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxopt_lite as jo
from tests.contract.table import TRANSFORMATIONS, problem


def path(*keys):
    return tuple(jax.tree_util.DictKey(key) for key in keys)


def fits(place, leaf, params) -> bool:
    """Whether the axes of a leaf are as long as the place says."""
    shapes = {p: x.shape for p, x in jax.tree_util.tree_leaves_with_path(params)}
    members = [shapes[p] for p in place.params]
    if "flat" in place.axes:  # codes in blocks of 4, or a scale for each block
        (shape,) = members
        blocks = -(-np.prod(shape, dtype=int) // 4)
        return leaf.shape == ((blocks, 4) if len(place.axes) == 2 else (blocks,))
    lengths = []
    for axis, n in zip(place.axes, leaf.shape, strict=True):
        if axis == "concat":
            lengths.append(sum(shape[0] for shape in members) == n)
        else:
            is_cut = leaf.ndim == 4  # into blocks, [stack, blocks, side, side]: their number and size are of no axis
            lengths.append(all(shape[axis] == n for shape in members) if axis is not None else n == 1 or is_cut)
    return all(lengths)


# Rules whose state holds sums over a leaf, or over all leaves.
MEASURES = (
    "dadapt",
    "dog",
    "dowg",
    "hypergradient",
    "mechanize",
    "novograd",
    "prodigy",
    "scale_by_do",
    "scale_by_novograd",
    "schedule_free",
)


def test_every_leaf_of_every_row_has_its_place():
    for name, optimizer in TRANSFORMATIONS.items():
        params, _ = problem(name)
        state, layout = jax.eval_shape(optimizer.init, params), jo.state_layout(optimizer, params)
        assert jax.tree.structure(layout) == jax.tree.structure(state), name
        for leaf, place in zip(jax.tree.leaves(state), jax.tree.leaves(layout), strict=True):
            if name == "mechanize" and leaf.shape == (3,) and not place.sure:
                continue  # its three games look like the three numbers of "b"
            assert place.sure and len(place.axes) == len(leaf.shape), name
            assert fits(place, leaf, params), (name, leaf, place)
            is_number = leaf.shape == () and not jnp.issubdtype(leaf.dtype, jnp.floating)
            assert is_number or place.params or name.startswith(MEASURES), (name, leaf, place)


def test_places_by_hand():
    params = {"a": jnp.zeros((2, 3)), "b": jnp.zeros((2, 3)), "c": {"d": jnp.zeros(4)}}
    optimizer = jo.chain(jo.clip_by_global_norm(1.0), jo.stack_leaves(jo.adam(0.1)), jo.add_noise(0.1, 0.5))
    _, stacked, noise = jo.state_layout(optimizer, params)
    assert stacked.inner_state[0].mu.stacks == [jo.Place((path("a"), path("b")), ("concat", 1))]
    assert stacked.inner_state[0].nu.alone == [jo.Place((path("c", "d"),), (0,))]
    assert stacked.inner_state[0].count == noise.count == noise.rng_key == jo.Place()
    masked = jo.state_layout(jo.masked(jo.trace(0.9), {"a": True, "b": False, "c": True}), params).inner_state.trace
    assert jax.tree.leaves(masked) == [jo.Place((path("a"),), (0, 1)), jo.Place((path("c", "d"),), (0,))]
    assert jo.state_layout(jo.novograd(0.1), params)[0].nu["a"] == jo.Place((path("a"),), ())


def test_a_single_array_and_no_array_are_params_too():
    adam = jo.state_layout(jo.adam(0.1), jnp.zeros((2, 3)))[0]
    assert adam.mu == adam.nu == jo.Place(((),), (0, 1)) and adam.count == jo.Place()
    assert jo.state_layout(jo.adam(0.1), jnp.zeros(()))[0].mu == jo.Place(((),), ())
    assert jo.state_layout(jo.adam(0.1), {})[0].count == jo.Place()
    assert jo.state_layout(jo.adam(0.1), {"w": jax.ShapeDtypeStruct((2,), jnp.bfloat16)})[0].mu["w"].sure


def test_lifted_rules_with_other_shapes():
    """Factored moments by the order of axes; a list for each parameter, and what has lost an axis, by asking."""
    for make in (jo.adafactor, jo.lift(optax.adafactor)):
        adafactor = make(0.1, min_dim_size_to_factor=2)
        state = jo.state_layout(adafactor, {"w": jnp.zeros((4, 3)), "b": jnp.zeros(5)})[0]
        assert (state.v_row["w"].axes, state.v_col["w"].axes) == ((1,), (0,))
        assert state.v["b"] == jo.Place((path("b"),), (0,)) and state.v["w"].axes == (None,)
        square = jo.state_layout(adafactor, {"w": jnp.zeros((2, 4, 4))})[0]
        assert square.v_row["w"] == jo.Place((path("w"),), (0, 1)) and square.v_col["w"].axes == (0, 2)
        assert jo.state_layout(adafactor, jnp.zeros((2, 2)))[0].v_row == jo.Place(((),), (0,))
    last = jo.scale_by_factored_rms(min_dim_size_to_factor=2, form="torch")
    state = jo.state_layout(last, {"w": jnp.zeros((4, 3, 3))})
    assert (state.v_row["w"].axes, state.v_col["w"].axes) == ((0, 1), (0, 2)) and state.v_row["w"].sure

    @jo.transformation
    def averages():
        return lambda params: jax.tree.map(lambda p: p[0], params), lambda u, s, p=None: (u, s)

    square = jo.state_layout(averages(), {"w": jnp.zeros((4, 4)), "b": jnp.zeros((2, 4))})
    assert square["w"].axes == (1,) and square["b"].axes == (1,)
    sm3 = jo.state_layout(jo.lift(optax.scale_by_sm3)(), {"w": jnp.zeros((3, 3)), "b": jnp.zeros(3)})
    rows = [place.axes for place in jax.tree.leaves(sm3.mu["w"])]
    assert rows == [(0,), (1,)] and all(place.params == (path("w"),) for place in jax.tree.leaves(sm3.mu["w"]))


def test_a_node_says_how_it_is_laid_out():
    @jax.tree_util.register_pytree_node_class
    class Halves:
        def __init__(self, left, right):
            self.left, self.right = left, right

        def tree_flatten(self):
            return (self.left, self.right), None

        @classmethod
        def tree_unflatten(cls, aux, children):
            return cls(*children)

        def layout(self, place):
            return Halves(jo.Place(place.params, ("flat",)), jo.Place(place.params, ("flat",)))

    @jo.transformation
    def halved():
        split = lambda p: Halves(*jnp.split(jnp.zeros(p.size), 2))
        return lambda params: jax.tree.map(split, params), lambda u, s, p=None: (u, s)

    layout = jo.state_layout(halved(), {"w": jnp.zeros((2, 3)), "b": jnp.zeros(4)})
    assert layout["w"].left == layout["w"].right == jo.Place((path("w"),), ("flat",))


def test_averages_and_rates_are_found_through_views():
    start = {"a": jnp.ones((2, 3)), "b": jnp.full((2, 3), 2.0), "c": jnp.ones(3)}
    grads = jax.tree.map(lambda p: 0.1 * p, start)
    plain = jo.chain(jo.sgd(jo.linear_schedule(1.0, 0.0, 4)), jo.ema_params(0.5, debias=False))

    def after_two_steps(optimizer):
        params, state = start, optimizer.init(start)
        for _ in range(2):
            updates, state = optimizer.update(grads, state, params)
            params = jo.apply_updates(params, updates)
        return state

    stacked = jo.stack_leaves(plain)
    state = after_two_steps(stacked)
    jax.tree.map(np.testing.assert_array_equal, jo.averaged_params(state), jo.averaged_params(after_two_steps(plain)))
    assert jo.hyperparameters(stacked, state)["stack_leaves.sgd.learning_rate"] == 0.5


def test_a_view_is_compared_hashed_and_pickled_by_what_it_is_made_of():
    init = lambda params: jo.stack_leaves(jo.trace(0.9)).init(params)
    two, same, three = (init([jnp.ones((n, 3))] * 2) for n in (2, 2, 3))
    assert isinstance(two, jo.View) and two.parts == same.parts != three.parts
    assert hash(two.parts) == hash(same.parts) and "concat" in repr(two.parts)
    assert jax.tree.structure(two) == jax.tree.structure(same) != jax.tree.structure(three)
    loaded = pickle.loads(pickle.dumps(two))
    assert loaded.parts == two.parts
    jax.tree.map(np.testing.assert_array_equal, loaded, two)
