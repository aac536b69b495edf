"""Proximal and projected gradient: scikit-learn's minima, exact zeros, Optax's sets, derivatives, honest endings."""

import pickle
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from optax import projections

import jaxopt_lite as jo
from tests.quick import quick_jit

proximal, projected = jo.solvers.proximal_gradient, jo.solvers.projected_gradient
LINEAR = np.array([-6.0, -6.15703, -5.55986])
MATRIX = np.array([[3.0, 2.8464949, 2.4178848], [2.8464949, 3.0, 2.84649498], [2.4178848, 2.84649498, 3.0]])


def quadratic(p):
    return jnp.asarray(LINEAR, p.dtype) @ p + p @ jnp.asarray(MATRIX, p.dtype) @ p


@pytest.mark.usefixtures("x64")
def test_elastic_nets_of_diabetes_are_those_of_scikit_learn_and_their_paths_have_derivatives():
    pytest.importorskip("sklearn")
    from sklearn.datasets import load_diabetes
    from sklearn.linear_model import ElasticNet

    x, y = load_diabetes(return_X_y=True)
    x, y = x - x.mean(0), y - y.mean()
    f = lambda w: jnp.sum((x @ w - y) ** 2) / (2 * len(y))

    def solve(strength, ratio):
        return jo.minimize(
            f, jnp.zeros(10), proximal(jo.elastic_net_penalty(strength, ratio)), max_steps=3000, tol=1e-13
        )

    h = 1e-5  # relative, on both sides of each strength
    alphas, ratios = np.array([1.0, 0.1, 0.02, 0.1, 0.02]), np.array([1.0, 1.0, 1.0, 0.3, 0.8])
    strengths = (alphas[:, None] * (1 + h * np.arange(-1, 2))).ravel()
    path = quick_jit(jax.vmap(solve))(strengths, np.repeat(ratios, 3))
    assert path.converged.all() or (path.grad_norm < 1e-9).all(), path.status
    of = lambda leaf: leaf.reshape(5, 3, *leaf.shape[1:])
    params, values = of(path.params), of(path.value)
    for i, (alpha, ratio) in enumerate(zip(alphas, ratios, strict=True)):
        model = ElasticNet(alpha=alpha, l1_ratio=ratio, fit_intercept=False, tol=1e-14, max_iter=10**6).fit(x, y)
        theirs = f(model.coef_) + jo.elastic_net_penalty(alpha, ratio)(jnp.asarray(model.coef_))
        assert abs(values[i, 1] - theirs) <= 1e-12 * theirs
        assert ((params[i, 1] == 0) == (model.coef_ == 0)).all()

    def derivatives(strength, ratio):
        f = lambda s: (lambda found: (found.params, found.value))(solve(s, ratio))
        return jax.jvp(f, (strength,), (jnp.ones_like(strength),))[1], jax.jacrev(f)(strength)

    forward, backward = quick_jit(jax.vmap(derivatives))(alphas, ratios)
    for leaf, found in ((0, params), (1, values)):
        differences = (found[:, 2] - found[:, 0]) / (2 * h * alphas.reshape(5, *[1] * (found.ndim - 2)))
        scale = np.abs(differences).max()
        np.testing.assert_allclose(forward[leaf], differences, 1e-6, 1e-6 * scale)
        np.testing.assert_allclose(backward[leaf], forward[leaf], 1e-9, 1e-9 * scale)


@pytest.mark.usefixtures("x64")
def test_logistic_regressions_are_as_good_as_those_of_scikit_learn():
    pytest.importorskip("sklearn")
    from sklearn.datasets import load_breast_cancer, load_iris
    from sklearn.linear_model import LogisticRegression

    mask = jo.by_path({"w": True}, default=False)

    def one_score(params, x, labels):
        scores = x @ params["w"] + params["b"]
        return jnp.sum(jax.nn.softplus(scores) - labels * scores)

    def three_scores(params, x, labels):
        scores = x @ params["w"] + params["b"][None]
        return jnp.sum(jax.nn.logsumexp(scores, axis=1) - jnp.sum(scores * labels, axis=1))

    (x, y), (flowers, kinds) = load_breast_cancer(return_X_y=True), load_iris(return_X_y=True)
    x = (x - x.mean(0)) / x.std(0)
    rows = (
        (one_score, {"w": jnp.zeros(30), "b": jnp.zeros(())}, x, y, y.astype(float)),
        (three_scores, {"w": jnp.zeros((4, 3)), "b": jnp.zeros(3)}, flowers, kinds, np.eye(3)[kinds]),
    )
    for f, start, x, y, labels in rows:
        method = lambda ratio: proximal(jo.elastic_net_penalty(1.0, ratio, mask))
        solve = lambda ratio: jo.minimize(f, start, method(ratio), (x, labels), max_steps=5000)  # noqa: B023
        found = quick_jit(jax.vmap(solve))(np.array([0.0, 1.0]))
        for i, (penalty, algorithm, tol) in enumerate((("l2", "lbfgs", 1e-10), ("l1", "saga", 1e-5))):
            model = LogisticRegression(penalty=penalty, solver=algorithm, tol=tol, max_iter=20_000)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of another name for `penalty` in newer versions
                model.fit(x, y)
            like = lambda leaf, array: jnp.asarray(array).reshape(leaf.shape)
            theirs = {"w": like(start["w"], model.coef_.T), "b": like(start["b"], model.intercept_)}
            best = f(theirs, x, labels) + jo.elastic_net_penalty(1.0, float(i), mask)(theirs)
            assert found.value[i] <= best * (1 + 1e-8), (i, found.value[i], best)


BALLS = (  # projections with one number
    projections.projection_simplex,
    projections.projection_l1_ball,
    projections.projection_l2_ball,
    projections.projection_linf_ball,
    projections.projection_hypercube,
    lambda x, scale: projections.projection_non_negative(x),
    lambda x, scale: projections.projection_box(x, jnp.full(3, -scale / 4), jnp.full(3, scale / 3)),
    lambda x, scale: projections.projection_halfspace(x, NORMAL, -scale),
    lambda x, scale: jnp.stack(projections.projection_hyperplane([*x], [*NORMAL], scale)),  # of a tree
    lambda x, scale: projections.projection_vector(x, NORMAL),
    projections.projection_l1_sphere,
    projections.projection_l2_sphere,
)
NORMAL = np.array([1.0, -2.0, 0.5])


def one_of_balls(x, which, scale):
    return jax.lax.switch(which.astype(int), [lambda x, s, p=p: p(x, s) for p in BALLS], x, scale)


@pytest.mark.usefixtures("x64")
def test_every_projection_of_optax_in_one_program_with_derivatives_in_its_radius():
    target, widths = np.array([1.0, -0.7, 2.0]), np.array([1.0, 2.0, 0.5])
    f = lambda x: jnp.sum(widths * ((x - target) ** 2 + 0.1 * (x - target) ** 4))
    solve = lambda which, scale: jo.minimize(f, jnp.full(3, 0.2), projected(one_of_balls, (which, scale)), tol=1e-13)
    n, h = len(BALLS), 1e-5
    which, scales = np.arange(n, dtype=float), np.repeat([0.9, 0.9 - h, 0.9 + h], n)
    found = quick_jit(jax.vmap(solve))(np.tile(which, 3), scales)
    assert (found.grad_norm < 1e-9).all(), found.grad_norm
    params = found.params.reshape(3, n, 3)
    others = np.random.default_rng(0).normal(size=(30, 3)) * 2
    for i, project in enumerate(BALLS):
        x = params[0, i]
        np.testing.assert_allclose(project(x, 0.9), x, atol=1e-14)
        if i < n - 2:  # all but the spheres are convex: no point of the set is better
            there = jax.vmap(project, (0, None))(others, 0.9)
            assert ((there - x[None]) @ jax.grad(f)(x) >= -1e-8).all(), i
    slope = lambda w, s: jax.jacrev(lambda s: solve(w, s).params)(s)
    backward = quick_jit(jax.vmap(slope))(which, np.full(n, 0.9))
    np.testing.assert_allclose(backward, (params[2] - params[1]) / (2 * h), 1e-6, 1e-6)


def test_from_a_vertex_of_the_simplex_and_again_from_the_solution():
    solve = quick_jit(lambda x: jo.minimize(quadratic, x, projected(projections.projection_simplex)))
    for start in (np.array([1.0, 0.0, 0.0], np.float32), np.array([5.0, -1.0, 3.0], np.float32)):
        found = solve(start)
        assert found.converged and found.params[2] == 0 and found.params.dtype == np.float32
        np.testing.assert_allclose(found.params, [0.24425931, 0.75574069, 0.0], atol=1e-4)
        np.testing.assert_allclose(found.value, -3.17534703, 1e-6)
        again = solve(found.params)
        assert again.converged and again.evaluations <= 3


def test_a_nonlinear_path_has_second_derivatives():
    """min (x - 1)⁴ / 4 + λ |x| has x = 1 - λ^(1/3)."""
    f = lambda p: jnp.sum((p["x"] - 1) ** 4) / 4 + jnp.sum(jnp.abs(p["z"] - 1j) ** 2)
    start = {"x": jnp.zeros(2), "z": jnp.zeros(1, jnp.complex64)}
    with jax.enable_x64(True):
        start = jax.tree.map(lambda leaf: leaf.astype(complex if jnp.iscomplexobj(leaf) else float), start)

        def solve(strength):
            found = jo.minimize(f, start, proximal(jo.l1_penalty(strength)), tol=1e-14, max_steps=5000).params
            return found["x"], found["z"].imag

        twice = quick_jit(jax.jacfwd(jax.jacrev(solve)))(0.125)
        np.testing.assert_allclose(twice[0], 2 / 9 * 0.125 ** (-5 / 3), 1e-6)
        np.testing.assert_allclose(twice[1], 0, atol=1e-9)
        np.testing.assert_allclose(solve(0.125)[1], 1 - 0.125 / 2, 1e-9)
        assert (solve(3.0)[1] == 0).all() and (solve(3.0)[0] == 0).all()


def test_endings():
    kinds = (
        lambda x: jnp.clip(x, 0, 1),
        lambda x: 0.9 * jnp.clip(x, 0, 1),  # no projection
        lambda x: x * jnp.nan,
        projections.projection_simplex,
    )
    choose = lambda x, which: jax.lax.switch(which.astype(int), kinds, x)
    rows = (  # objective, projection, status
        (lambda x: jnp.sum(x), 3.0, jo.Status.CONVERGED_GRADIENT),  # linear: 1 everywhere on the simplex
        (lambda x: x @ jnp.array([3.0, 1.0, 2.0]), 3.0, jo.Status.CONVERGED_GRADIENT),
        (quadratic, 1.0, jo.Status.INFEASIBLE),
        (quadratic, 2.0, jo.Status.NON_FINITE),
        (lambda x: jnp.sum(jnp.log(x - 2)), 0.0, jo.Status.NON_FINITE),
        (lambda x: jnp.sum((x + 1) ** 2), 0.0, jo.Status.CONVERGED_GRADIENT),
    )
    f = lambda x, i: jax.lax.switch(i, [row[0] for row in rows], x)
    solve = lambda i, which: jo.minimize(f, jnp.array([0.2, 0.3, 0.5]), projected(choose, (which,)), (i,))
    found = quick_jit(jax.vmap(solve))(np.arange(len(rows)), np.array([row[1] for row in rows], np.float32))
    assert [int(s) for s in found.status] == [row[2] for row in rows], found.status
    assert found.params[1].tolist() == [0, 1, 0] and found.params[5].tolist() == [0, 0, 0]


def test_a_solve_is_resumed_and_aux_is_of_the_returned_point():
    f = lambda x: (jnp.sum((x - jnp.array([3.0, 0.1])) ** 2 * jnp.array([1.0, 30.0])), {"seen": x})
    solve = lambda **more: jo.minimize(f, jnp.zeros(2), proximal(jo.l1_penalty(7.0)), has_aux=True, **more)
    whole, first = solve(), solve(max_steps=3)
    assert first.status == jo.Status.MAX_STEPS and whole.params.tolist() == [0, 0] or whole.params[1] == 0
    rest = solve(state=first.state)
    assert (rest.params == whole.params).all() and rest.evaluations == whole.evaluations
    assert (whole.aux["seen"] == whole.params).all() and whole.converged
    np.testing.assert_allclose(whole.value, f(whole.params)[0] + 7 * jnp.sum(jnp.abs(whole.params)), 1e-6)


def test_a_solver_of_a_set_is_a_value():
    method = projected(projections.projection_box, (0, {"w": np.array([1.0, 2.0], np.float32)}))
    assert jo.parse(repr(method)) == method == pickle.loads(pickle.dumps(method))
    assert hash(method) == hash(projected(projections.projection_box, (5.0, {"w": jnp.zeros(2)})))
    known = jo.hyperparameters(method)
    assert known["projected_gradient.arguments.0"] == 0.0
    assert known["projected_gradient.arguments.1.w"].tolist() == [1, 2]
    other = jo.replace(method, {"arguments.0": -1, "first_step": 0.5})
    assert other.arguments["arguments"][0] == -1.0 and other.arguments["first_step"] == 0.5
    assert jo.replace(method, {"arguments": (1.0, 2.0)}).arguments["arguments"] == (1.0, 2.0)
    complex_normal = projected(projections.projection_hyperplane, (np.array([1 + 1j]), 1.0))
    assert jo.arrays(complex_normal).arguments["arguments"][0].dtype == np.complex64
    assert "(1+1j)" in repr(complex_normal)
    net = proximal(jo.l1_penalty(0.1))
    assert jo.parse(repr(net)) == net and jo.replace(net, {"strength": 0.2}) == proximal(jo.l1_penalty(0.2))


@jo.penalty
def kinked(strength: jo.NonNegative):
    return lambda params: strength * jnp.max(params)


@jo.penalty
def broken(strength: jo.NonNegative):
    return lambda params: strength * jnp.max(params["w"]), lambda params, step: {"w": params["w"][:1]}


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: proximal(jo.l1_penalty), TypeError, r"penalty must be a penalty, .* call it: l1_penalty"),
        (lambda: proximal(kinked(1.0)), TypeError, r"kinked\(1.0\) has no proximal operator"),
        (lambda: proximal(jo.l1_penalty(1.0), tries=0), ValueError, "tries must be an int of at least 1, got 0"),
        (lambda: projected(3), TypeError, "projection must be a function .*, got 3"),
        (lambda: projected(jo.l1_penalty(1.0)), TypeError, "use proximal_gradient"),
        (lambda: projected(jnp.abs, 1.0), TypeError, r"arguments must be a tuple .*; write \(x,\)"),
        (lambda: projected(jnp.abs, ({"r": "1"},)), TypeError, r"arguments\[0\]\['r'\] must be a number .* string '1'"),
        (lambda: projected(jnp.abs, (True,)), TypeError, r"arguments\[0\] must be a number"),
        (
            lambda: jo.minimize(lambda p: p["w"].sum(), {"w": jnp.zeros(3)}, proximal(broken(1.0))),
            ValueError,
            r"broken: its proximal operator must return a tree like params, but result\['w'\] has shape \(1,\)",
        ),
        (
            lambda: jo.minimize(jnp.sum, jnp.zeros(3), projected(lambda x: {"w": x})),
            ValueError,
            "projected_gradient: the projection must return a tree like params, but result lacks the leaf",
        ),
        (
            lambda: jo.minimize(jnp.sum, jnp.zeros(3), proximal(jo.l1_penalty(1.0)), bounds=(0, 1)),
            ValueError,
            "proximal_gradient takes no bounds",
        ),
    ],
)
def test_wrong_input(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_unrolled_in_reverse_from_zeros():
    """The probes of a start have lengths that are roots of zero here."""
    f = lambda w: jnp.sum(jnp.array([1.0, 5.0, 9.0]) * (w - jnp.array([1.0, 2.0, 3.0])) ** 2) / 2
    solve = lambda t: (
        jo.minimize(f, jnp.zeros(3), proximal(jo.l1_penalty(t)), max_steps=40, differentiate="unrolled").params
    )
    np.testing.assert_allclose(jax.jacrev(solve)(0.5), [-1, -1 / 5, -1 / 9], 1e-3)


@pytest.mark.usefixtures("x64")
def test_nonnegative_least_squares_of_diabetes_are_those_of_scikit_learn():
    pytest.importorskip("sklearn")
    from sklearn.datasets import load_diabetes
    from sklearn.linear_model import LinearRegression

    x, y = load_diabetes(return_X_y=True)
    x, y = x - x.mean(0), y - y.mean()
    f = lambda w: jnp.sum((x @ w - y) ** 2) / (2 * len(y))
    found = jo.minimize(f, jnp.zeros(10), projected(projections.projection_non_negative))
    theirs = LinearRegression(positive=True, fit_intercept=False).fit(x, y).coef_
    assert found.converged and abs(found.value - f(theirs)) <= 1e-12 * f(theirs)
    assert ((found.params == 0) == (theirs == 0)).all()
