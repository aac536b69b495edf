"""`minimize`, `least_squares`, `curve_fit`, `root` and `fixed_point`: one set of arguments, checks and dtypes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo

X2, X3 = np.ones(2), np.ones(3)


def bowl(w, centre=3.0):
    return jnp.sum((w - centre) ** 2)


def square(w):
    return w**2


MISTAKES = [
    # A method for the wrong kind of problem.
    (
        lambda: jo.minimize(bowl, X2, jo.solvers.levenberg_marquardt()),
        "is a method of least_squares; use solvers.lbfgs",
    ),
    (lambda: jo.root(square, X2, jo.solvers.lbfgs()), "is a method of minimize; use solvers.newton"),
    (lambda: jo.root(square, X2, jo.adam(0.1)), "does not solve equations"),
    (lambda: jo.root(square, X2, jo.solvers.brent()), r"root\(..., bracket=\(low, high\)\)"),
    (lambda: jo.fixed_point(square, X2, jo.solvers.lbfgs()), "is a method of minimize; use solvers.anderson"),
    (lambda: jo.minimize(bowl, X2, jo.adam(0.1), bounds=(0.0, 1.0)), "adam takes no bounds; use jo.solvers.lbfgsb"),
    # What the function returns.
    (lambda: jo.minimize(square, X2), r"real scalar, got shape \(2,\).*least_squares.*minimize_batch"),
    (lambda: jo.minimize(lambda w: (bowl(w), w), X2), "real scalar, got 2 arrays.*has_aux=True"),
    (lambda: jo.minimize(bowl, X2, has_aux=True), "has_aux=True the function must return a pair"),
    (lambda: jo.least_squares(lambda w: jnp.arange(3), X2), "floating numbers, got shape .* int"),
    (lambda: jo.root(lambda w: w[:1], X2), "as many equations as unknowns, got 1 equations and 2 unknowns"),
    (lambda: jo.fixed_point(lambda w: w[:1], X2), "g must return a tree like params"),
    (lambda: jo.fixed_point(lambda w: {"a": w}, X2), "g must return a tree like params"),
    # Bounds and brackets.
    (lambda: jo.minimize(bowl, X2, bounds=((0, 1), (0, 1))), "the lower bound must be a number or an array"),
    (lambda: jo.minimize(bowl, X3, bounds=[(0, 1)] * 3), r"one pair \(lower, upper\) for all parameters"),
    (lambda: jo.minimize(bowl, X2, bounds=(X3, None)), r"lower bound has shape \(3,\), start has shape \(2,\)"),
    (lambda: jo.minimize(lambda w: bowl(w["a"]), {"a": X2}, bounds=({"b": 0.0}, None)), r"lacks the leaf start\['a'\]"),
    (lambda: jo.minimize(bowl, X2, bounds=(np.array([0.0, 2.0]), 1.0)), "must not exceed the upper one"),
    (lambda: jo.minimize(lambda w: bowl(abs(w)), X2 + 0j, bounds=(0.0, 1.0)), "complex, which has no bounds"),
    (lambda: jo.root(square, bracket=(0,)), "bracket must be a pair"),
    (lambda: jo.root(square, bracket=(0, np.inf)), "ends of a bracket must be finite"),
    (lambda: jo.root(square, X3, bracket=(0, 1)), "one real unknown"),
    (lambda: jo.root(square, bracket=(X2, X2)), "single numbers"),
    (lambda: jo.root(square), "give a start, or a bracket"),
    # Leaves, numbers and options.
    (lambda: jo.minimize(bowl, np.ones(2, bool)), "dtype bool"),
    (lambda: jo.minimize(bowl, X2, args=("a",)), r"args\[0\] must be a number or an array, got the string 'a'"),
    (lambda: jo.least_squares(square, X2, loss="hubert"), "loss must be 'linear'"),
    (lambda: jo.least_squares(square, X2, f_scale=0), "f_scale must be a number above 0"),
    (lambda: jo.minimize(bowl, X2, differentiate="no"), "differentiate must be 'implicit'"),
    (lambda: jo.minimize(bowl, X2, has_aux=1), "has_aux must be"),
    (lambda: jo.minimize(bowl, X2, state=jo.minimize(bowl, X3, max_steps=1).state), "not of this problem and method"),
    (lambda: jo.minimize(bowl, X2, jo.sgd(0.1), state=jo.minimize(bowl, X2).state), "not of this problem and method"),
    (lambda: jo.minimize(bowl, X2).covariance, "needs the Jacobian"),
    (lambda: jo.root(5, X2), "f must be a function"),
    (lambda: jo.fixed_point(5, X2), "g must be a function"),
    (lambda: jo.least_squares(5, X2), "residual must be a function"),
    (lambda: jax.jit(lambda x: jo.root(square, x, progress="lines").params)(X2), "cannot be used under jit"),
]


def test_mistakes_are_named():
    for call, words in MISTAKES:
        with pytest.raises((TypeError, ValueError), match=words):
            call()


def test_bounds_have_many_forms_and_a_start_outside_is_moved():
    start = {"a": X2 * 9, "b": 5}
    f = lambda p: bowl(p["a"]) + (p["b"] - 2) ** 2
    for bounds in ((None, 1.0), ({"a": None, "b": 0.0}, {"a": X2, "b": np.inf}), (-np.inf, {"a": 1.0, "b": 7})):
        solution = jo.minimize(f, start, bounds=bounds)
        assert solution.converged and solution.params["a"].tolist() == [1.0, 1.0]
        np.testing.assert_allclose(solution.params["b"], 1.0 if bounds[1] == 1.0 else 2.0, 1e-4)


def test_bounds_are_traced_and_vmapped():
    upper = jnp.array([1.0, 2.0, -1.0, jnp.nan])
    solution = jax.vmap(lambda high: jo.minimize(bowl, jnp.zeros(2), bounds=(0.0, high)))(upper)
    assert solution.status.tolist() == [1, 1, jo.Status.INFEASIBLE, jo.Status.INFEASIBLE]
    assert solution.params[:2].tolist() == [[1, 1], [2, 2]]


@pytest.mark.usefixtures("x64")
def test_leaves_keep_their_dtypes_and_narrow_ones_are_widened():
    start = {"half": jnp.ones(2, jnp.bfloat16), "single": jnp.ones(2, jnp.float32), "double": jnp.ones(2), "int": 1}
    wanted = {"half": jnp.float32, "single": jnp.float32, "double": jnp.float64, "int": jnp.float64}
    residual = lambda p: jax.tree.map(lambda x: x - 3.0, p)
    for solution in (
        jo.minimize(lambda p: sum(bowl(x) for x in jax.tree.leaves(p)), start),
        jo.least_squares(residual, start),
        jo.root(residual, start),
        jo.fixed_point(lambda p: jax.tree.map(lambda x: x / 2 + 1.5, p), start),
    ):
        assert jax.tree.map(lambda x: x.dtype, solution.params) == wanted and solution.converged
        for leaf in jax.tree.leaves(solution.params):
            np.testing.assert_allclose(leaf, 3, 1e-4)


def test_every_entry_point_is_resumed_and_watched(capsys):
    solves = {
        "minimize": lambda **k: jo.minimize(lambda w: jnp.sum((w - 3) ** 4), X2, **k),
        "least_squares": lambda **k: jo.least_squares(lambda w: (w - 3) ** 3, X2, **k),
        "root": lambda **k: jo.root(lambda w: (w - 3) ** 3, X2, **k),
        "fixed_point": lambda **k: jo.fixed_point(lambda w: jnp.cos(w + 0.1), X2, **k),
        "curve_fit": lambda **k: jo.curve_fit(lambda x, a: (a - 3) ** 3 * x, X2, X2, [0.0], **k),
    }
    for name, solve in solves.items():
        whole, part, seen = solve(), solve(max_steps=3), []
        assert part.status == jo.Status.MAX_STEPS and part.steps == 3, name
        rest = solve(state=part.state, progress="lines", callback=lambda s: seen.append(s))  # noqa: B023
        assert seen and rest.status == whole.status and rest.steps == whole.steps, name
        np.testing.assert_array_equal(rest.params, whole.params, name)
        assert "value" in capsys.readouterr().err


def test_functions_made_anew_share_a_program_and_see_new_data():
    def solve(data):
        return jo.minimize(lambda w: bowl(w, data), jnp.zeros(3)).params

    np.testing.assert_allclose(solve(jnp.full(3, 1.0)), 1, 1e-4)
    with jax.log_compiles(False), jax.checking_leaks():
        np.testing.assert_allclose(solve(jnp.full(3, 2.0)), 2, 1e-4)
    np.testing.assert_allclose(jax.grad(lambda t: solve(t * jnp.ones(3)).sum())(2.0), 3, 1e-4)
