"""Methods for n equations in n unknowns, F(x) = 0, in a trust region.

    Newton     J = F'(x) at every point                               Powell, 1970; Moré, Garbow & Hillstrom, 1980
    Broyden    B₊ = B + (F₊ - F - B s) (D²s)ᵀ / ‖D s‖²,  s = x₊ - x           Broyden, 1965, "good" update

A step evaluates F at x + s, with s of `hybrid.dogleg_step`. It is accepted if ‖F‖ shrinks; the radius follows the
share of the expected decrease that came true. Near a double root full steps reduce ‖F‖ to 1/4 only; after two such
steps the next one is doubled (Kelley & Suresh, 1983).

Converged means that F is zero or at the rounding of its terms, |Fᵢ| <= 8 ε (|J||x|)ᵢ, or that Newton's step from x
is small, |pⱼ| <= tol |xⱼ|, with the exact Jacobian. Neither depends on the units of F or x, but unknowns below 1e-12
are judged as if of that size, so that a double root at zero can be reached. Where no step reduces ‖F‖ any more and
|pⱼ| <= 4 ε max(1, |xⱼ|), the rounding of constants in F has been reached. The size of ‖F‖ alone, or of the last step,
would call slopes without a root and points where the radius collapsed converged.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_lite import tree
from jaxopt_lite.core.arguments import check_int
from jaxopt_lite.core.method import Info, Objective, Status, solver
from jaxopt_lite.core.numbers import Positive
from jaxopt_lite.core.vectors import from_vector, to_vector
from jaxopt_lite.solvers import hybrid
from jaxopt_lite.solvers.hybrid import norm
from jaxopt_lite.solvers.linear_model import column_norms

__all__ = ["EquationState", "broyden", "newton"]

ACCEPT = 1e-4  # the least share of the expected decrease
FAILURES = 2  # rejected steps in a row after which Broyden's matrix is replaced by the Jacobian


class EquationState(NamedTuple):
    """The state of a solve of equations. Residuals, aux and model are those at the parameters."""

    residuals: Any
    aux: Any
    model: hybrid.NewtonModel
    matrix: Any  # B, [n, n]; () of Newton
    widest: jax.Array  # the largest norms of the columns of J so far, [n]
    radius: jax.Array  # Δ
    first_norm: jax.Array  # ‖F‖ at the start
    largest_x: jax.Array  # the largest |x| so far, [n]
    quarters: jax.Array  # int32: full steps in a row that reduced ‖F‖ to about 1/4
    singular: jax.Array  # bool: a doubled step was accepted
    promised: jax.Array  # the expected decrease of the first trial from here, 0 if that was a short step
    failures: jax.Array  # int32: trials from here that were rejected
    exact: jax.Array  # bool: the matrix is the Jacobian here
    refresh: jax.Array  # bool: the next step evaluates F and the Jacobian at x
    begun: jax.Array  # bool: whether the start has been evaluated


def equation_method(who: str, radius: Any, quasi: bool, linear_steps: int | None) -> tuple:
    """The pair (init, step).

    Args:
        who: the factory, for messages.
        radius: the first Δ, in units of the larger of ‖D x‖ and ‖F‖.
        quasi: whether the matrix is Broyden's.
        linear_steps: the largest number of steps of LSMR; None for a dense Jacobian.
    """
    dense = linear_steps is None

    def evaluate(objective, params, dtype) -> tuple[Any, Any, jax.Array, Any]:
        """Residuals, aux, F [n], and the Jacobian: a matrix, or a function of vectors."""

        def flat(v):
            residuals, aux = objective.residual(from_vector(v, params))
            return to_vector(residuals).astype(dtype), (residuals, aux)

        x = to_vector(params).astype(dtype)
        r, push, (residuals, aux) = jax.linearize(flat, x, has_aux=True)
        return residuals, aux, r, jax.vmap(push, out_axes=1)(jnp.eye(x.size, dtype=dtype)) if dense else push

    def init(objective: Objective, params: Any) -> EquationState:
        residuals, aux = jax.eval_shape(objective.residual, params)
        r, x = jax.eval_shape(to_vector, residuals), jax.eval_shape(to_vector, params)
        if r.size != x.size:
            raise ValueError(
                f"{who}: as many equations as unknowns are needed, got {r.size} equations in {x.size} unknowns "
                "(complex ones count twice); use least_squares for any other number"
            )
        dtype = jnp.result_type(r.dtype, x.dtype)
        zeros = lambda like: jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), like)
        zero, vector, count, no = (
            jnp.zeros([], dtype),
            jnp.zeros(x.size, dtype),
            jnp.zeros([], jnp.int32),
            jnp.array(False),
        )
        model = hybrid.no_model(zero, vector)
        return EquationState(
            *(zeros(residuals), zeros(aux), model, jnp.zeros((x.size, x.size), dtype) if quasi else ()),
            *(vector, zero, zero, vector, count, no, zero, count, no, jnp.array(True), no),
        )

    def step(objective: Objective, params: Any, state: EquationState) -> tuple[Any, EquationState, Info]:
        old, refresh, begun, dtype = state.model, state.refresh, state.begun, state.radius.dtype
        tol = jnp.asarray(0 if objective.tol is None else objective.tol, dtype)
        eps = hybrid.epsilon(params, state.residuals)
        s, length, expected, full = hybrid.dogleg_step(old, state.radius)
        doubled = (state.quarters >= 2) & full & (state.failures == 0) & ~refresh
        s, expected = jnp.where(doubled, 2 * s, s), jnp.where(doubled, 1, expected)
        x = to_vector(params).astype(dtype)
        trial = tree.where(refresh, params, from_vector(x + s, params))
        x_trial = to_vector(trial).astype(dtype)

        if quasi:
            cheap = lambda: _updated(state, objective.residual(trial), x_trial - x)
            residuals, aux, r, J = jax.lax.cond(refresh, lambda: evaluate(objective, trial, dtype), cheap)
            finite = tree.all_finite((r, J))
        else:
            residuals, aux, r, J = evaluate(objective, trial, dtype)
            here = _model(r, J, x_trial, state.widest, tol, eps)
            finite = here.finite
        size = norm(r)
        finite &= jnp.isfinite(size)
        actual = 1 - (size / jnp.where(old.norm > 0, old.norm, 1)) ** 2
        ratio = actual / jnp.where(expected > 0, expected, 1)
        accepted = refresh | finite & (actual > 0) & (ratio >= ACCEPT)

        matrix, widest = state.matrix, state.widest
        if quasi:
            # A rejected step teaches an updated matrix too, so the model at the old point changes.
            matrix = jnp.where(finite & (accepted | ~state.exact), J, state.matrix)
            widest = jnp.where(refresh & finite, jnp.maximum(widest, column_norms(J)), widest)
            model = _model(
                jnp.where(accepted, r, old.norm * old.unit), matrix, jnp.where(accepted, x_trial, x), widest, tol, eps
            )
        else:
            if dense:
                widest = jnp.where(accepted & finite, jnp.maximum(widest, column_norms(J)), widest)
            model = tree.where(accepted, here, old)
        x_new = jnp.where(accepted, x_trial, x)

        scaled_x = norm(model.scale * x_new)
        first_radius = radius * jnp.maximum(scaled_x, model.norm)
        grown = jnp.where(ratio > 0.75, jnp.maximum(state.radius, 2 * length), state.radius)
        after = jnp.where(ratio < 0.25, 0.5 * length, grown)
        after = jnp.where(accepted, after, jnp.where(doubled, state.radius, 0.25 * length))
        again = jnp.minimum(first_radius, jnp.maximum(state.radius, length))
        new_radius = jnp.where(refresh, jnp.where(begun, again, first_radius), after).astype(dtype)

        share = size / jnp.where(old.norm > 0, old.norm, 1)
        quarter = accepted & full & ~doubled & ~refresh & (share > 0.22) & (share < 0.28)
        quarters = jnp.where(accepted, jnp.where(quarter, state.quarters + 1, 0), state.quarters)
        singular = state.singular | (accepted & doubled)
        failures = jnp.where(accepted, 0, state.failures + 1)
        short = length <= jnp.sqrt(tol) * norm(old.scale * x)
        promised = jnp.where(accepted, 0, jnp.where(state.failures == 0, jnp.where(short, 0, expected), state.promised))
        first_norm = jnp.where(begun, state.first_norm, size)
        largest_x = jnp.maximum(state.largest_x, jnp.abs(x_new))

        unmoved = jnp.all(x_trial == x) & ~refresh
        collapsed = ~accepted & ~doubled & ((new_radius <= eps * scaled_x) | (expected <= 2 * eps) | unmoved)
        reach = jnp.sqrt(tol) * largest_x
        slow = ~accepted | (share > 0.1)
        double = singular & slow & (model.norm <= eps * first_norm) & jnp.all(model.sizes <= reach) & model.solved
        # Of unknowns that tend to zero a clean quarter says that rounding is far away.
        double &= ~quarter | jnp.all(model.sizes <= jnp.sqrt(tol) * jnp.abs(x_new))
        # In float32 steps of 1e-7 may be more than rounding, so all shorter ones are tried too, unless F is rounding.
        hopeless = ~accepted & full & ~doubled & (model.rough | (eps <= hybrid.NEAR_ZERO))
        small = model.small | double | ((hopeless | collapsed) & model.noise)
        exact = refresh | (state.exact & ~accepted) if quasi else jnp.array(True)
        status = jnp.select(
            [
                refresh & ~finite & (size != 0),
                (model.norm == 0) | (exact & model.floor),
                exact & small,
                (exact & model.flat) | (exact & collapsed & (promised < 0.1)),
                exact & collapsed,
            ],
            [
                *(Status.NON_FINITE, Status.CONVERGED_GRADIENT, Status.CONVERGED_STEP, Status.STALLED),
                Status.LINE_SEARCH_FAILED,
            ],
            Status.RUNNING,
        ).astype(jnp.int32)
        doubtful = model.floor | small | model.flat | collapsed | (failures >= FAILURES)

        kept = tree.where(accepted, (trial, residuals, aux), (params, state.residuals, state.aux))
        new_params, residuals, aux = kept
        new_state = EquationState(
            *(residuals, aux, model, matrix, widest, new_radius, first_norm, largest_x, quarters, singular),
            *(promised.astype(dtype), failures, exact, doubtful & ~exact if quasi else jnp.array(False)),
            jnp.array(True),
        )
        updates = jax.tree.map(jnp.subtract, new_params, params)
        value, count = objective.cost(residuals), jnp.ones([], jnp.int32)
        return new_params, new_state, Info(value, aux, residuals, updates, status, count)

    def _updated(state, evaluated, s):
        """Broyden's update, in units of D."""
        residuals, aux = evaluated
        old, B = state.model, state.matrix
        r = to_vector(residuals).astype(s.dtype)
        z = old.scale * s
        size = jnp.where(norm(z) > 0, norm(z), 1)
        change = (r - old.norm * old.unit - B @ s) / size
        return residuals, aux, r, B + jnp.outer(change, old.scale * (z / size))

    def _model(r, J, x, widest, tol, eps):
        if dense:
            return hybrid.dense_model(r, J, x, widest, tol, eps)
        return hybrid.implicit_model(r, J, x, tol, eps, linear_steps)

    return init, step


@solver(solves="root")
def newton(radius: Positive = 100.0, *, linear_steps: int | None = None):
    """Newton's method in a trust region: J p = -F, bent to the steepest descent of ½‖F‖² where p is too long.

    Args:
        radius: the first radius, above 0, in units of the larger of ‖D x‖ and ‖F‖.
        linear_steps: None solves with the dense Jacobian, by QR, in O(n³); an int of at least 1 solves with products
            J v and Jᵀu only, with at most so many steps of LSMR for each evaluation of F.

    Raises:
        ValueError: if linear_steps is anything else; at the start of a solve, if the number of equations is not that
            of the unknowns.

    Reference: Powell, "A Hybrid Method for Nonlinear Equations", 1970; the scaling D is that of Moré, Garbow &
        Hillstrom, "User Guide for MINPACK-1", 1980; the doubled step that of Kelley & Suresh, "A New Acceleration
        Method for Newton's Method at Singular Points", 1983.
    """
    check_int("newton", "linear_steps", linear_steps, none=True)
    return equation_method("newton", radius, False, linear_steps)


@solver(solves="root")
def broyden(radius: Positive = 100.0):
    """Broyden's method in a trust region: Newton's with a matrix that is updated from the change of F.

    The Jacobian is evaluated at the start, after two rejected steps in a row, and once before the end, to confirm it.
    These evaluations count as one each. Under vmap it is computed in every step, and Newton's method is cheaper.

    Args:
        radius: the first radius, above 0, in units of the larger of ‖D x‖ and ‖F‖.

    Raises:
        ValueError: at the start of a solve, if the number of equations is not that of the unknowns.

    Reference: Broyden, "A Class of Methods for Solving Nonlinear Simultaneous Equations", 1965; within the hybrid of
        Powell, 1970, as in MINPACK's hybrj.
    """
    return equation_method("broyden", radius, True, None)
