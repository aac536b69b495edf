"""Under jit and vmap: what is compiled is what was written, once for all hyperparameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from tests.contract.table import (
    IDLE,
    PARAMS,
    PENALTIES,
    SCHEDULES,
    TRACED,
    TRANSFORMATIONS,
    assert_close,
    at,
    compiled,
    family,
    member,
    plain,
    problem,
    run,
    scan,
    stack,
    tolerance,
)
from tests.each import for_each
from tests.quick import quick_jit
from tests.recipes import WARMUP


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_compiled_is_interpreted(name):
    """jit equals no jit; a batch over every leaf equals a loop; the loop is traced once; and every leaf matters."""
    optimizer, here = TRANSFORMATIONS[name], problem(name)
    first, *others = members = family(optimizer)
    loop = [compiled(first, *here)]
    traced = len(TRACED)
    loop += [compiled(one, *here) for one in others]
    assert len(TRACED) == traced, "another number made another program"
    assert_close(loop[0], run(optimizer, *here), tolerance(optimizer), "jit against no jit")
    if len(members) == 1:
        return

    check_members(name, optimizer, loop, quick_jit(jax.vmap(lambda one: scan(one, *here)))(stack(members)))


@pytest.mark.parametrize("name", SCHEDULES | PENALTIES)
def test_a_compiled_function_is_interpreted(name):
    """The same laws for schedules, over many steps at once and at one step, and for penalties."""
    value, traces = (SCHEDULES | PENALTIES)[name], []

    def results(value):
        traces.append(name)
        return value(PARAMS) if name in PENALTIES else (value(jnp.arange(14)), value(3))

    program, members = quick_jit(results), family(value)
    loop = [program(one) for one in members]
    assert len(traces) == 1, "another number made another program"
    assert_close(loop[0], results(value), 1e-5, "jit against no jit")
    if name in SCHEDULES:
        one_by_one = [value(t) for t in range(14)]
        np.testing.assert_allclose(loop[0][0], one_by_one, 1e-5, err_msg="array against scalar steps")
    check_members(name, value, loop, quick_jit(jax.vmap(results))(stack(members)))


def check_members(name, value, loop, batch):
    """The results of a family: the batch is the loop, and each changed leaf has changed something."""
    paths = ["", *(jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(value))]
    batch, loop = plain(batch), [plain(result) for result in loop]
    for i, path in enumerate(paths):
        assert_close(member(batch, i), loop[i], tolerance(value), f"vmap against loop, {path}")
        influence = differ(loop[0], loop[i])
        assert influence == bool(path and path not in IDLE.get(name, ())), f"{path}: influence is {influence}"


def differ(a, b) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return any(not np.allclose(x.astype(float), y.astype(float), 1e-4, 1e-6) for x, y in pairs)


def make_training():
    """A jitted training function of an optimizer, and the list in which each tracing leaves a mark."""
    traces = []

    @quick_jit
    def train(optimizer):
        traces.append(1)
        return scan(optimizer)[1]

    return train, traces


def test_learning_rate_weight_decay_and_warmup_share_one_program():
    train, traces = make_training()
    ends = []
    for rate, decay, warmup in zip((1e-3, 3e-3, 0.01, 0.1, 1), (0, 1e-4, 1e-2, 0.1, 0.5), (0, 1, 2, 3, 4), strict=True):
        schedule = jo.warmup_cosine_decay_schedule(0.0, rate, warmup_steps=warmup, decay_steps=20)
        ends.append(train(jo.chain(jo.clip_by_global_norm(1.0), jo.adamw(schedule, weight_decay=decay)))["w"])
    assert len(traces) == 1
    assert len({e.tobytes() for e in map(np.asarray, ends)}) == 5


def test_numbers_that_came_as_ints_or_numpy_scalars_share_the_program_of_floats():
    train, traces = make_training()
    for rate in (1, 1.0, np.float64(1), np.int64(1), np.float32(1)):
        train(jo.sgd(rate))
    assert len(traces) == 1


def test_replacing_a_number_or_an_array_keeps_the_program():
    train, traces = make_training()
    optimizer = jo.adamw(WARMUP)
    for changed in (optimizer, jo.replace(optimizer, {"weight_decay": 0.3}), jo.replace(optimizer, {"peak_value": 1})):
        train(changed)
    assert len(traces) == 1
    swept = jo.arrays(optimizer)
    for changed in (swept, jo.replace(swept, {"b1": 0.5}), jo.replace(swept, {"b1": jnp.float32(0.4)})):
        train(changed)
    assert len(traces) == 2, "arrays are strongly typed, so they have a program of their own, but only one"


def test_static_arguments_of_other_types_have_other_programs():
    @jo.transformation
    def power(exponent: int = 2):
        return lambda params: (), lambda u, s, p=None: (jax.tree.map(lambda x: x**exponent, u), s)

    train, traces = make_training()
    for exponent in (1, 1.0, True, 1, 1.0, True):
        train(power(exponent))
    assert len(traces) == 3


def test_equal_static_parts_made_anew_share_a_program():
    train, traces = make_training()
    for _ in range(3):
        by_path, labels = jo.by_path({"w": True}, default=False), {"w": "a", "b": "b"}
        train(jo.chain(jo.adamw(0.1, mask=by_path), jo.partition({"a": jo.sgd(0.1), "b": jo.identity()}, labels)))
    assert len(traces) == 1


def test_vmap_over_one_leaf_alone():
    """The axes of vmap are a tree of the optimizer's structure, with None for what is shared."""
    optimizer = jo.replace(jo.adamw(0.1), {"learning_rate": jnp.array([0.1, 0.2])})
    axes = jax.tree_util.tree_map_with_path(
        lambda path, _: 0 if "learning_rate" in jax.tree_util.keystr(path) else None, optimizer
    )
    _, params, _ = jax.vmap(scan, in_axes=(axes,))(optimizer)
    for i, rate in enumerate((0.1, 0.2)):
        assert_close(member(params, i), scan(jo.adamw(rate))[1], 1e-5)


def test_what_is_made_inside_a_trace_of_plain_numbers_belongs_to_no_trace():
    """The closures of a rule are built once and kept, so they may keep no constants of the trace around them."""
    made = []

    @jax.jit
    def step(params, grads):
        made.append(jo.chain(jo.adam(jo.linear_onecycle_schedule(9.5, 1.0)), jo.lookahead(jo.sgd(0.1), 2, 0.5)))
        return made[0].update(grads, made[0].init(params), params)[0]

    grads = at(0)
    with jax.checking_leaks():
        inside = step(PARAMS, grads)
    assert_close(made[0].update(grads, made[0].init(PARAMS), PARAMS)[0], inside, 1e-6)


def test_what_is_made_of_tracers_dies_with_their_trace():
    @jax.jit
    def step(params, grads, rate):
        optimizer = jo.chain(jo.adam(jo.linear_onecycle_schedule(9.5, rate)), jo.lookahead(jo.sgd(rate), 2, 0.5))
        again = jo.chain(jo.adam(jo.linear_onecycle_schedule(9.5, rate)), jo.lookahead(jo.sgd(rate), 2, 0.5))
        assert optimizer == again and hash(optimizer) == hash(again) and repr(optimizer) == repr(again)
        return optimizer.update(grads, again.init(params), params)[0]

    with jax.checking_leaks():
        step(PARAMS, at(0), 0.5)


def test_a_traced_value_first_used_in_an_inner_trace_works_in_the_outer_one():
    """What was built inside holds the inner trace's tracers, so it must not be kept for the next use."""

    def both(rate):
        optimizer = jo.adam(jo.linear_onecycle_schedule(9.5, rate))  # computes with its numbers when it is built
        update = lambda params: optimizer.update(at(0), optimizer.init(params), params)[0]
        return jax.jit(update)(PARAMS), update(PARAMS)

    for f, rate in ((both, 0.1), (jax.vmap(both), jnp.array([0.1, 0.2]))):
        inner, outer = quick_jit(f)(rate)
        assert_close(inner, outer, 1e-5)


# --- States -----------------------------------------------------------------------------------------------------------


def buffers(tree):
    """The addresses of the arrays' memory."""
    leaves = [x for x in jax.tree.leaves(tree) if isinstance(x, jax.Array)]
    is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return [(jax.random.key_data(x) if is_key(x) else x).unsafe_buffer_pointer() for x in leaves]


@for_each(TRANSFORMATIONS)
def test_no_two_leaves_of_a_run_share_a_buffer(name):
    """Else a jitted step that donates params, optimizer and state is refused: the same buffer twice."""
    params = jax.tree.map(lambda p: jnp.array(p, copy=True), problem(name)[0])
    optimizer = jo.arrays(TRANSFORMATIONS[name])
    found = buffers((TRANSFORMATIONS[name], params, optimizer, optimizer.init(params)))
    assert len(found) == len(set(found))


def test_states_and_optimizers_can_be_donated():
    rate = jnp.float32(0.1)
    optimizer = jo.chain(
        jo.accumulate(jo.adamw(rate), 2),
        jo.lookahead(jo.lion(rate), 2, 0.5),
        jo.adan(rate),
        jo.ema_params(0.9),
        jo.zero_nans(),
        jo.skip_not_finite(jo.rprop(rate)),
    )
    params = jax.tree.map(lambda p: jnp.array(p, copy=True), PARAMS)
    run_state = (params, jo.arrays(optimizer), optimizer.init(params))

    def step(run_state):
        params, optimizer, state = run_state
        updates, state = optimizer.update(at(0), state, params)
        return jo.apply_updates(params, updates), optimizer, state

    donating = jax.jit(step, donate_argnums=0)
    for _ in range(3):
        run_state = donating(run_state)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(params))
    assert not rate.is_deleted()
