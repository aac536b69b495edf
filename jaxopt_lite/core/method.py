"""Methods: what moves parameters. A transformation never sees the objective; a solver owns it.

    advance(method, objective, params, state) -> (params, state, Info)

drives both. A transformation is given the gradient at params; a solver decides where to evaluate.
The author of a solver writes the closures, and the decorator makes the value:

    @solver
    def gradient_descent(...): ...          return init, step

    init(objective, params) -> state                            never evaluates
    step(objective, params, state) -> (params, state, Info)     one evaluation of f; of a population, one generation

A step holds no loop over evaluations whose length depends on data, so that a batch under vmap does not wait for the
slowest line search in it.
"""

import enum
import functools
import typing
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_lite import tree
from jaxopt_lite.core.loss_scale import loss_scale_of, unscaled
from jaxopt_lite.core.transformation import apply_updates
from jaxopt_lite.core.values import Value, register, remember_calls
from jaxopt_lite.core.vectors import from_vector, to_vector

__all__ = ["Info", "Interval", "Objective", "Quadratic", "Solver", "Status", "advance", "solver"]

P = ParamSpec("P")
KINDS = ("minimize", "least_squares", "root", "fixed_point", "bracket", "quadratic_program")


class Status(enum.IntEnum):
    """Why a solve has ended, or RUNNING. Stored as an int32, so that it can be vmapped."""

    RUNNING = 0
    CONVERGED_GRADIENT = 1
    CONVERGED_VALUE = 2
    CONVERGED_STEP = 3
    STALLED = 4
    MAX_STEPS = 5
    NON_FINITE = 6
    UNBOUNDED = 7
    LINE_SEARCH_FAILED = 8
    INFEASIBLE = 9
    NO_BRACKET = 10
    INTERRUPTED = 11
    NOT_CONVEX = 12

    @property
    def converged(self) -> bool:
        """Whether a test of convergence was met."""
        return self in (Status.CONVERGED_GRADIENT, Status.CONVERGED_VALUE, Status.CONVERGED_STEP)

    @property
    def message(self) -> str:
        """The status in a sentence, with advice."""
        return _MESSAGES[self]


_MESSAGES = {
    Status.RUNNING: "It has not ended.",
    Status.CONVERGED_GRADIENT: "Converged: the norm of the gradient is within the tolerance.",
    Status.CONVERGED_VALUE: "Converged: the value no longer changes by more than the tolerance.",
    Status.CONVERGED_STEP: "Converged: the parameters no longer change by more than the tolerance.",
    Status.STALLED: (
        "Stalled at working precision: no step lowers the value any more, but the gradient is not within the "
        "tolerance. Scale the parameters, use float64, or raise tol."
    ),
    Status.MAX_STEPS: "Out of steps: raise max_steps, or resume with state=solution.state.",
    Status.NON_FINITE: "The value or the gradient is not finite: start from other parameters, or check the objective.",
    Status.UNBOUNDED: "The value reached minus infinity: the objective seems to have no lower bound.",
    Status.LINE_SEARCH_FAILED: (
        "The line search found no lower value along a direction in which the gradient predicts one: check the "
        "gradient (a custom derivative, stop_gradient, or a function that is not smooth)."
    ),
    Status.INFEASIBLE: (
        "No point satisfies the constraints; or what was given as a projection moves its own results, so it returns no "
        "points of the set."
    ),
    Status.NO_BRACKET: "The ends of the bracket do not have values of opposite sign.",
    Status.INTERRUPTED: "Interrupted: resume with state=solution.state.",
    Status.NOT_CONVEX: (
        "P has a negative eigenvalue, so the quadratic program is not convex: look for a local minimum by "
        "minimize(..., constraints=...)."
    ),
}


class Info(NamedTuple):
    """What a step measured: at the given parameters for a transformation, at the returned ones for a solver.

    Attributes:
        value: the objective, a scalar.
        aux: what the objective returned beside it, see `Objective.value`.
        grads: the gradient, like params (of complex parameters the direction of ascent); of a solver of equations the
            residuals.
        updates: new params minus old ones.
        status: int32, RUNNING or why the solver has ended.
        evaluations: int32, how often f was evaluated.
    """

    value: jax.Array
    aux: Any
    grads: Any
    updates: Any
    status: jax.Array
    evaluations: jax.Array


class Interval(NamedTuple):
    """Constraints lower <= values <= upper, three vectors [m]; equal bounds make an equality."""

    values: jax.Array
    lower: jax.Array
    upper: jax.Array

    @property
    def excess(self) -> jax.Array:
        """How far each value is outside: negative below the lower bound, positive above the upper one."""
        return self.values - jnp.clip(self.values, self.lower, self.upper)


class Quadratic(NamedTuple):
    """The numbers of a quadratic program: min ½ x·P x + q·x with lower <= A x <= upper."""

    p: jax.Array  # [n, n], symmetric
    q: jax.Array  # [n]
    a: jax.Array  # [m, n]
    lower: jax.Array  # [m]
    upper: jax.Array  # [m]


class Objective:
    """The function of a problem, with its tolerance and bounds. It is used within one trace only.

    A problem is given by f, which returns a scalar, or by residuals: a tree r(params), of which the value to be
    minimized is ½ Σ ρ(|rᵢ|²). Equations ask for residuals of zero.

    Args:
        f: params -> scalar, or (scalar, aux) with `has_aux`; None for a problem given by residuals.
        residual: params -> tree of arrays, or (tree, aux) with `has_aux`.
        rho: the robust loss ρ of squared residuals, an elementwise function; None is the identity.
        has_aux: whether f or residual returns a pair.
        tol: the tolerance, a number; see `converged`.
        lower: a tree like params, or None: lower bounds.
        upper: a tree like params, or None: upper bounds.
        key: a random key for methods that draw numbers, or None.
        constraints: params -> `Interval`, or None.
        quadratic: the numbers of a quadratic program, or None.
    """

    def __init__(
        self,
        f: Any = None,
        *,
        residual: Any = None,
        rho: Any = None,
        has_aux: bool = False,
        tol: Any = None,
        lower: Any = None,
        upper: Any = None,
        key: Any = None,
        constraints: Callable[[Any], Interval] | None = None,
        quadratic: Quadratic | None = None,
    ):
        self.constraints, self.quadratic = constraints, quadratic
        self.f, self._residual, self.rho, self.has_aux = f, residual, rho, has_aux
        self.tol, self.lower, self.upper, self.key = tol, lower, upper, key

    def value(self, params: Any) -> tuple[jax.Array, Any]:
        """The value, a scalar of at least float32, and aux: of residuals the pair of them and the user's aux."""
        if self._residual is not None:
            residuals, aux = self.residual(params)
            return self.cost(residuals), aux
        result = self.f(params)
        value, aux = result if self.has_aux else (result, None)
        value = jnp.asarray(value)
        if value.shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
            raise TypeError(
                f"the objective must return a real scalar, got shape {value.shape} and dtype {value.dtype}; sum or "
                "average it (and give has_aux=True where it returns more)"
            )
        return tree.widen(value), aux

    def value_and_grad(self, params: Any, scale: Any = None) -> tuple[jax.Array, Any, Any]:
        """The value, aux, and the gradient: the direction of steepest ascent, also for complex parameters.

        Where a scale is given, the gradient is that of the value times the scale.
        """
        if scale is None:
            (value, aux), grads = jax.value_and_grad(self.value, has_aux=True)(params)
        else:
            scaled = lambda found: (found[0] * scale.astype(found[0].dtype), found)
            (_, (value, aux)), grads = jax.value_and_grad(lambda p: scaled(self.value(p)), has_aux=True)(params)
        return value, aux, jax.tree.map(lambda g: jnp.conj(g) if jnp.iscomplexobj(g) else g, grads)

    def hvp(self, params: Any, vector: Any) -> Any:
        """The Hessian at params times a vector, both trees like params; forward over reverse."""
        return jax.jvp(lambda p: self.value_and_grad(p)[2], (params,), (vector,))[1]

    def residual(self, params: Any) -> tuple[Any, Any]:
        """The residuals, a tree of at least float32, and aux: the pair of them and the user's aux, as in `value`."""
        result = self._residual(params)
        residuals, aux = result if self.has_aux else (result, None)
        residuals = tree.widen(jax.tree.map(jnp.asarray, residuals))
        return residuals, (residuals, aux)

    def linearize(self, params: Any) -> tuple[Any, Any, Callable]:
        """The residuals, aux, and the function v -> J v with trees v like params, J v like the residuals.

        Its transpose, u -> Jᵀu, is `jax.linear_transpose(push, params)`.
        """
        residuals, push, aux = jax.linearize(self.residual, params, has_aux=True)
        return residuals, aux, push

    def jacobian(self, params: Any) -> tuple[jax.Array, Any, jax.Array]:
        """The residuals as a vector [m], aux, and the Jacobian [m, n], by forward mode for n <= m, else by reverse.

        Vectors are those of `to_vector`, so complex leaves count twice.
        """

        def flat(x):
            residuals, aux = self.residual(from_vector(x, params))
            return to_vector(residuals), aux

        x = to_vector(params)
        residuals, push, aux = jax.linearize(flat, x, has_aux=True)
        if x.size <= residuals.size:
            return residuals, aux, jax.vmap(push, out_axes=1)(jnp.eye(x.size, dtype=x.dtype))
        pull = jax.linear_transpose(push, x)
        return residuals, aux, jax.vmap(lambda u: pull(u)[0])(jnp.eye(residuals.size, dtype=residuals.dtype))

    def cost(self, residuals: Any) -> jax.Array:
        """½ Σ ρ(|rᵢ|²), a scalar."""
        rho = self.rho or (lambda z: z)
        terms = [jnp.sum(rho(tree.abs_sq(r))) for r in jax.tree.leaves(residuals)]
        return sum(terms[1:], start=terms[0]) / 2

    def converged(self, norm: jax.Array, value: jax.Array, first_norm: jax.Array) -> jax.Array:
        """Whether ‖g‖ = 0 or ‖g‖ <= tol min(‖g₀‖, max(1, |f|)), a bool scalar.

        With the first norm alone, a start with a large gradient would end too early; with max(1, |f|) alone, a slope
        without a minimum would count as converged.
        """
        return (norm == 0) | (norm <= self.tol * jnp.minimum(first_norm, jnp.maximum(1, jnp.abs(value))))


def default_tol(dtype: Any) -> float:
    """ε^(2/3) for numbers of a dtype: 4e-11 for float64, 2e-5 for float32."""
    return float(np.finfo(np.float64 if dtype == np.float64 else np.float32).eps ** (2 / 3))


@register
class Solver(Value):
    """A pair (init, step) that is also a pytree of its hyperparameters. Make one by calling a factory."""

    noun = "a solver"
    traced = True

    @property
    def solves(self) -> str:
        """The kind of problem that it solves."""
        return self.factory.solves

    @property
    def takes_bounds(self) -> bool:
        """Whether it takes bounds."""
        return self.factory.bounds or self.factory.box

    @property
    def needs_box(self) -> bool:
        """Whether it needs finite bounds of all parameters."""
        return self.factory.box

    @property
    def needs_key(self) -> bool:
        """Whether it draws random numbers."""
        return self.factory.random

    @property
    def takes_constraints(self) -> bool:
        """Whether it takes equality and inequality constraints."""
        return self.factory.constraints

    @property
    def optimality(self) -> Callable[[Objective, Any], Any] | None:
        """G with G(objective, params) = 0 at a solution, a tree like params; None where G is the gradient."""
        return self.built[2] if len(self.built) > 2 else None

    @property
    def penalty(self) -> Callable[[Objective, Any], jax.Array] | None:
        """What the value that it reports has beside the objective's, (objective, params) -> scalar; None is nothing."""
        return self.built[3] if len(self.built) > 3 else None

    def init(self, objective: Objective, params: Any) -> Any:
        """The initial state of a solve. f is not evaluated."""
        return self.built[0](objective, params)

    def step(self, objective: Objective, params: Any, state: Any) -> tuple[Any, Any, Info]:
        """One evaluation of f: the new parameters, the new state and an `Info`."""
        return self.built[1](objective, params, state)


@typing.overload
def solver(function: Callable[P, Any], /) -> Callable[P, Solver]: ...


@typing.overload
def solver(
    *,
    solves: str = "minimize",
    bounds: bool = False,
    box: bool = False,
    random: bool = False,
    constraints: bool = False,
) -> Callable[[Callable[P, Any]], Callable[P, Solver]]: ...


def solver(
    function: Any = None,
    /,
    *,
    solves: str = "minimize",
    bounds: bool = False,
    box: bool = False,
    random: bool = False,
    constraints: bool = False,
) -> Any:
    """Make a factory of solvers from a function that returns a pair (init, step).

    A solver of this package prints and parses with its folder, such as `solvers.lbfgs()`.

    Args:
        function: the function to decorate. It returns `init(objective, params) -> state` and `step(objective, params,
            state) -> (params, state, info)`; where solutions are not zeros of the gradient a third one,
            `optimality(objective, params)`, a tree like params that is zero at a solution, by which solutions are
            differentiated; where it reports more than the objective's value a fourth one, `penalty(objective, params)`,
            the scalar that it adds. Annotations mean what they mean for `transformation`: number types are leaves, all
            others are static.
        solves: the kind of problem: "minimize", "least_squares", "root", "fixed_point", "bracket" (an equation in one
            unknown between two ends, which stand in `objective.lower` and `objective.upper`) or "quadratic_program"
            (its numbers stand in `objective.quadratic`).
        bounds: whether it takes bounds.
        box: whether it needs finite bounds of all parameters.
        random: whether it draws random numbers, from `objective.key`.
        constraints: whether it takes constraints, which stand in `objective.constraints`.

    Raises:
        ValueError: if `solves` is anything else.
    """
    flags = dict(solves=solves, bounds=bounds, box=box, random=random, constraints=constraints)
    if function is None:
        return functools.partial(solver, **flags)
    if solves not in KINDS:
        raise ValueError(f"solver: solves must be one of {', '.join(map(repr, KINDS))}, got {solves!r}")
    factory: Any = remember_calls(function, Solver)
    package, _, folder = function.__module__.partition(".")
    if package == __name__.partition(".")[0]:
        factory.spelling = f"{folder.partition('.')[0]}.{function.__name__}"
    vars(factory).update(flags)
    return factory


def advance(method: Any, objective: Objective, params: Any, state: Any) -> tuple[Any, Any, Info]:
    """One step of a method: of a solver its own, of a transformation value and gradient, update, and apply.

    Args:
        method: a transformation or a solver.
        objective: what is minimized.
        params: the parameters.
        state: of the method: `method.init(objective, params)` for a solver, `method.init(params)` for a transformation.

    Returns:
        New parameters, new state, and an `Info`.
    """
    if isinstance(method, Solver):
        return method.step(objective, params, state)
    scale = loss_scale_of(state)
    value, aux, grads = objective.value_and_grad(params, scale)
    given, extra = grads, {}
    if scale is not None:
        grads, extra = tree.cast_like(unscaled(given, scale), given), {"loss_scale": scale}
    value_fn = lambda p: objective.value(p)[0]
    updates, state = method.update(given, state, params, value=value, grad=grads, value_fn=value_fn, **extra)
    status = jnp.asarray(Status.RUNNING, jnp.int32)
    info = Info(value, aux, grads, updates, status, jnp.ones([], jnp.int32))
    return apply_updates(params, updates), state, info
