"""`minimize`: any method, one trace for other numbers, resumed, watched, and bad arguments."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_lite as jo
from tests.solvers.problems import rosenbrock

SOLVERS = [jo.solvers.lbfgs(first_step=0.5, memory=4), jo.solvers.gradient_descent(c1=0.01, c2=0.4, tries=15)]


@pytest.mark.parametrize("value", SOLVERS, ids=lambda value: value.factory.__name__)
def test_a_solver_is_a_value(value):
    name = value.factory.__name__
    assert repr(value).startswith(f"solvers.{name}(") and jo.parse(repr(value)) == value
    assert jo.parse(jo.spell(value, defaults=True)) == value == pickle.loads(pickle.dumps(value))
    assert hash(value) == hash(jo.parse(repr(value))) and isinstance(value, jo.Solver)
    assert list(jo.hyperparameters(value)) == [f"{name}.c1", f"{name}.c2", f"{name}.first_step"]
    assert jo.replace(value, {"first_step": 2.0}) != value
    assert jax.tree.leaves(jax.tree.map(lambda x: 2 * x, value)) == [2 * x for x in jax.tree.leaves(value)]
    batch = jax.vmap(lambda v: v)(jax.tree.map(lambda *x: jnp.stack(jnp.array(x)), value, value))
    assert batch.arguments["c1"].shape == (2,)
    with pytest.raises(AttributeError, match="does not change"):
        value.c1 = 0.1


def test_a_solver_of_ones_own():
    @jo.solver
    def fixed_step(rate: jo.Positive = 0.1):
        def init(objective, params):
            return jnp.zeros([], jnp.int32)

        def step(objective, params, state):
            value, aux, grads = objective.value_and_grad(params)
            updates = jax.tree.map(lambda g: -rate * g, grads)
            new = jax.tree.map(jnp.add, params, updates)
            status = jnp.where(objective.converged(jnp.abs(grads), value, jnp.inf), 1, 0).astype(jnp.int32)
            return new, state + 1, jo.Info(value, aux, grads, updates, status, jnp.ones([], jnp.int32))

        return init, step

    solution = jo.minimize(lambda x: (x - 2) ** 2, 0.0, method=fixed_step(0.3))
    assert repr(fixed_step(0.3)) == "fixed_step(rate=0.3)" and solution.converged
    np.testing.assert_allclose(solution.params, 2, 1e-4)


def test_an_objective_gives_a_solver_hessian_products_and_a_key():
    """A Newton step in a direction that the key draws: on a quadratic, the slope along it is zero afterwards."""

    @jo.solver
    def random_newton():
        def step(objective, params, state):
            direction = jax.random.normal(jax.random.fold_in(objective.key, state), params.shape)
            value, aux, grads = objective.value_and_grad(params)
            curvature = jnp.vdot(direction, objective.hvp(params, direction))
            updates = -direction * jnp.vdot(direction, grads) / curvature
            info = jo.Info(value, aux, grads, updates, jnp.zeros([], jnp.int32), jnp.ones([], jnp.int32))
            return params + updates, state + 1, info

        return lambda objective, params: jnp.zeros([], jnp.int32), step

    matrix = jnp.array([[3.0, 1.0], [1.0, 2.0]])
    quadratic = lambda x: x @ matrix @ x / 2
    ends = []
    for seed in (0, 0, 1):
        key = jax.random.key(seed)
        end = jo.minimize(quadratic, jnp.ones(2), method=random_newton(), max_steps=1, key=key).params
        direction = jax.random.normal(jax.random.fold_in(key, 0), (2,))
        np.testing.assert_allclose(direction @ jax.grad(quadratic)(end), 0, atol=1e-5)
        ends.append(end.tolist())
    assert ends[0] == ends[1] != ends[2]


def test_the_same_function_with_other_numbers_is_traced_once():
    traces = []

    def f(x, centre):
        traces.append(1)
        return jnp.sum((x - centre) ** 4)

    first = jo.minimize(f, jnp.zeros(3), args=(jnp.ones(3),))
    n = len(traces)
    second = jo.minimize(
        f, jnp.ones(3), method=jo.solvers.lbfgs(c2=0.5), args=(2 * jnp.ones(3),), tol=1e-3, max_steps=77
    )
    assert len(traces) == n and first.converged and second.converged
    np.testing.assert_allclose(second.params, 2, 0.1)


@pytest.mark.parametrize(
    "method", [jo.adamw(0.1, weight_decay=0.0), jo.chain(jo.clip(1.0), jo.sgd(0.2)), optax.adam(0.1)]
)
def test_a_transformation_is_a_method(method):
    """The parameters returned are those at which the gradient was measured."""
    f = lambda x: jnp.sum((x - 1.0) ** 2)
    solution = jo.minimize(f, jnp.array([3.0, -2.0]), method=method, tol=1e-4)
    assert solution.converged and solution.grad_norm <= 1e-4
    assert solution.value == f(solution.params)
    np.testing.assert_allclose(solution.grad_norm, np.linalg.norm(jax.grad(f)(solution.params)), 1e-4, 1e-7)


def test_aux_is_of_the_point_that_is_returned():
    for method in (jo.solvers.lbfgs(), jo.sgd(0.3)):
        solution = jo.minimize(lambda y: ((y - 3.0) ** 2, {"y": y}), 0, method=method, has_aux=True)
        assert solution.aux["y"] == solution.params and solution.params.dtype == jnp.float32


@pytest.mark.parametrize("method", [jo.solvers.lbfgs(), jo.adam(0.05)], ids=["lbfgs", "adam"])
def test_a_solve_is_resumed_bit_for_bit(method):
    start = jnp.array([-1.2, 1.0])
    whole = jo.minimize(rosenbrock, start, method=method, max_steps=30)
    part = jo.minimize(rosenbrock, start, method=method, max_steps=11)
    assert part.status == jo.Status.MAX_STEPS and "max_steps" in part.message
    rest = jo.minimize(rosenbrock, part.params, method=method, state=part.state, max_steps=19)
    jax.tree.map(np.testing.assert_array_equal, rest, whole)
    ended = jo.minimize(rosenbrock, start, max_steps=500)
    again = jo.minimize(rosenbrock, ended.params, state=ended.state)
    assert again.converged and again.evaluations == ended.evaluations


def test_a_solve_is_watched_and_ended_by_its_callback(capsys):
    seen = []

    def callback(solution):
        seen.append(int(solution.steps))
        return len(seen) == 2

    stopped = jo.minimize(rosenbrock, jnp.array([-1.2, 1.0]), callback=callback, progress="lines")
    assert seen == [20, 40] and stopped.status == jo.Status.INTERRUPTED and stopped.steps == 40
    assert capsys.readouterr().err.startswith("step 20/1000  value")
    rest = jo.minimize(rosenbrock, stopped.params, state=stopped.state)
    alone = jo.minimize(rosenbrock, jnp.array([-1.2, 1.0]))
    assert rest.converged and rest.steps == alone.steps
    np.testing.assert_array_equal(rest.params, alone.params)
    with pytest.raises(ValueError, match="cannot be used under jit, grad or vmap"):
        jax.jit(lambda x: jo.minimize(rosenbrock, x, callback=callback).params)(jnp.ones(2))


def test_within_jit_it_is_the_same_program():
    inside = jax.jit(lambda x, c: jo.minimize(lambda x, c: jnp.sum((x - c) ** 4), x, args=(c,)).params)
    np.testing.assert_allclose(inside(jnp.zeros(2), 3.0), 3, 0.1)
    with pytest.raises(TypeError, match="traced solution"):
        jax.jit(lambda x: jo.minimize(rosenbrock, x).message)(jnp.ones(2))


f = rosenbrock
START = np.array([-1.2, 1.0])
ERRORS = [
    (lambda: jo.minimize(3, START), TypeError, "f must be a function"),
    (
        lambda: jo.minimize(f, START, method="lbfgs"),
        TypeError,
        "method must be a transformation, got the string 'lbfgs'",
    ),
    (lambda: jo.minimize(f, START, method=jo.solvers.lbfgs), TypeError, r"call it: lbfgs\(\.\.\.\)"),
    (
        lambda: jo.minimize(f, START, method=jo.solvers.lbfgs(), bounds=(0, 1)),
        ValueError,
        "lbfgs takes no bounds; use jo.solvers.lbfgsb",
    ),
    (lambda: jo.minimize(f, START, args=3.0), TypeError, r"args must be a tuple.*write \(x,\)"),
    (lambda: jo.minimize(f, START, max_steps=0), ValueError, "max_steps must be an int of at least 1"),
    (lambda: jo.minimize(f, START, tol=-1.0), ValueError, "tol must be a number of at least 0"),
    (lambda: jo.minimize(f, START, progress="dots"), ValueError, "progress must be .*'none'.*'bar'"),
    (lambda: jo.minimize(f, {}), ValueError, "start holds no parameters"),
    (lambda: jo.minimize(f, {"a": "x"}), TypeError, r"params\['a'\] is the string 'x'"),
    (lambda: jo.minimize(f, START, state=3), TypeError, "state must be the `state` of a solution"),
    (lambda: jo.minimize(lambda x: x, START), TypeError, r"must return a real scalar, got shape \(2,\)"),
    (
        lambda: jo.minimize(lambda p: p["a"] ** 2, {"a": 1.0}, state=jo.minimize(f, START, max_steps=1).state),
        ValueError,
        "the state is not of this problem",
    ),
]


@pytest.mark.parametrize(("call", "error", "words"), ERRORS, ids=range(len(ERRORS)))
def test_mistakes_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
