"""Methods that minimize a quadratic model of f within a radius Δ, for solvers that have the Hessian H.

    m(p) = f + gᵀp + ½ pᵀHp,  ‖p‖ <= Δ                               Nocedal & Wright, 2006, Eq. (4.3)

All share one state machine: evaluate at x + p; accept p if f fell by a share of what the model predicted; change Δ; and
propose the next p from the model at the point that was kept. One evaluation of value and gradient a step. The methods
differ in how they propose p, see `newton` and `dogleg`.

Where f and f₊ differ by rounding only, the decrease is taken from the slopes, -½ (g + g₊)ᵀp, which are still exact.

A small gradient alone is no minimum: far along the slopes of 1/x it is small too, and x is not near anything. So
converged by gradient means also that the Newton step is short, ‖p‖ <= √tol ‖x‖ with the largest ‖x‖ so far. Started
anew near a degenerate minimum, such as that of x⁴, a solve has not seen a large gradient. There ‖p‖ and ‖g‖ shrink by

    ρ = (k - 1) / k,  ρᵏ        for ‖g‖ ~ ‖x - x*‖ᵏ

and a short step which does that for a k >= 2.5 ends the solve.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_lite import tree
from jaxopt_lite.core.method import Info, Objective, Status
from jaxopt_lite.tree import inner

__all__ = ["LocalModel", "Proposal", "TrustState", "magnitudes", "trust_region_method"]

ACCEPT = 1e-3  # the share of the predicted decrease that a step must bring
IDLE = 8  # number of successive accepted steps without progress after which a solve has stalled
PROGRESS = 0.9  # a gradient norm below this times the least so far counts as progress
RISES = 9  # number of successive trials with a higher value but a negative slope after which slopes are taken as wrong
LATE = 60  # steps within the tolerance of the gradient, but with long Newton steps, after which a solve has stalled
POWER = (0.6, 0.95)  # ‖p‖ shrinks by 2/3 a step towards the minimum of |x|⁴, by 7/8 towards that of |x|⁹
ROUNDING = 8.0  # values that differ by less than this times ε |f| count as equal
TRIES = 40  # rejected steps in succession after which a solve ends: Δ is then 4⁻⁴⁰ of what it was


class LocalModel(NamedTuple):
    """What a method knows of H at a point.

    Attributes:
        hessian: of any kind, for the method itself; in the state if `keep` says so.
        terms: a tree like the parameters: for each, the size of the terms Hᵢⱼ xⱼ of which its gradient is the sum.
        size: an estimate of ‖H‖, a scalar.
    """

    hessian: Any
    terms: Any
    size: jax.Array


class Proposal(NamedTuple):
    """A step, and what the model says about the point where it starts.

    Attributes:
        step: p, a tree like the parameters.
        predicted: f - m(p), a scalar.
        at_radius: bool, whether ‖p‖ = Δ.
        newton: the decrease ½ gᵀH⁻¹g of the Newton step, infinite unless the step is that one.
        saddle: bool, whether H has a negative eigenvalue.
    """

    step: Any
    predicted: jax.Array
    at_radius: jax.Array
    newton: jax.Array
    saddle: jax.Array


class TrustState(NamedTuple):
    """The state of a trust-region method. Values, aux and gradient are those at the parameters."""

    value: jax.Array
    aux: Any
    grads: Any
    proposal: Proposal  # the step to try next
    radius: jax.Array
    memory: Any  # what the method keeps
    products: jax.Array  # int32, the number of products with H so far
    first_norm: jax.Array  # of the gradient at the start
    least_norm: jax.Array  # of the gradients so far
    largest: jax.Array  # ‖x‖ so far
    late: jax.Array  # int32: steps with a gradient within the tolerance
    idle: jax.Array  # int32
    rejected: jax.Array  # int32, in succession
    rises: jax.Array  # int32, in succession
    begun: jax.Array  # bool: whether the start has been evaluated


def trust_region_method(
    empty: Callable[[Any], Any],
    build: Callable[[Objective, Any, Any, Any, Any], tuple[LocalModel, Any, Any]],
    propose: Callable[[LocalModel, Any, Any, Any, Any], tuple[Proposal, Any]],
    first_radius: Any,
) -> tuple[Callable, Callable]:
    """The pair (init, step) of a method with a trust region.

    Args:
        empty: params -> the memory at the start.
        build: (objective, x, g, memory, moved) -> (model, memory, products), `moved` says whether x is new.
        propose: (model, g, radius, near, at_end) -> (proposal, products), `near` is a bool: the solve may end here
            if the Newton step is short, so it should be exact; `at_end`: the gradient is within the tolerance. In
            both cases the method looks for a negative eigenvalue of H. products are int32 counts.
        first_radius: the first Δ, in units of the larger of ‖x‖ and ‖g‖ / ‖H‖.
    """

    def init(objective: Objective, params: Any) -> TrustState:
        value, aux = jax.eval_shape(objective.value, params)
        zeros = lambda like: jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), like)
        zero, still, no = jnp.zeros([], value.dtype), jax.tree.map(jnp.zeros_like, params), jnp.array(False)
        count = jnp.zeros([], jnp.int32)
        proposal = Proposal(still, zero, no, zero, no)  # p = 0: the first evaluation is at the start
        return TrustState(
            *(zero, zeros(aux), still, proposal, zero, empty(params), count),
            *(zero, zero, zero, count, count, count, count, no),
        )

    def step(objective: Objective, params: Any, state: TrustState) -> tuple[Any, TrustState, Info]:
        begun, (p, predicted, at_radius, *_) = state.begun, state.proposal
        trial = jax.tree.map(jnp.add, params, p)
        value, aux, grads = objective.value_and_grad(trial)
        real = lambda x: jnp.asarray(x, value.dtype)
        eps = jnp.finfo(value.dtype).eps

        norm = real(tree.global_norm(grads))
        finite = jnp.isfinite(value) & jnp.isfinite(norm)
        rounding = ROUNDING * eps * jnp.abs(state.value)
        slope, slope_before = real(inner(grads, p)), real(inner(state.grads, p))
        equal = jnp.abs(value - state.value) <= rounding
        decrease = jnp.where(equal, -(slope + slope_before) / 2, state.value - value)
        ratio = decrease / jnp.where(predicted == 0, 1, predicted)
        accepted = ~begun | finite & (ratio > ACCEPT)

        # Nocedal & Wright, Algorithm 4.1
        length = real(tree.global_norm(p))
        shrinks, grows = ~(finite & (ratio >= 0.25)), at_radius & (ratio > 0.75)
        radius = jnp.where(shrinks, 0.25 * length, jnp.where(grows, 2 * length, state.radius))

        first_norm = jnp.where(begun, state.first_norm, norm)
        progress = (state.value - value > rounding) | (norm < PROGRESS * state.least_norm) | ~begun
        idle = jnp.where(accepted, jnp.where(progress, 0, state.idle + 1), state.idle)
        rejected = jnp.where(accepted, 0, state.rejected + 1)
        rose = finite & (value > state.value + rounding) & (slope < 0)
        rises = jnp.where(accepted, 0, state.rises + rose)
        least_norm = jnp.where(begun, jnp.minimum(state.least_norm, jnp.where(accepted, norm, jnp.inf)), norm)
        unmoved = jnp.all(jnp.array([jnp.all(new == old) for new, old in zip(*map(jax.tree.leaves, (trial, params)))]))
        here = (trial, value, aux, grads, norm)
        there = (params, state.value, state.aux, state.grads, real(tree.global_norm(state.grads)))
        best, f, best_aux, g, best_norm = tree.where(accepted, here, there)

        model, memory, built = build(objective, best, g, state.memory, accepted)
        size_x, size_h = real(tree.global_norm(best)), real(model.size)
        guess = jnp.maximum(size_x, jnp.where(size_h > 0, best_norm / jnp.where(size_h > 0, size_h, 1), 0))
        guess = first_radius * jnp.where((guess > 0) & jnp.isfinite(guess), guess, 1)
        radius = jnp.where(begun, radius, real(guess))
        small = objective.converged(best_norm, f, first_norm)
        near = best_norm <= objective.tol * jnp.maximum(1, jnp.abs(f))
        # At the floor of the dtype, once a step has brought no progress or is expected to bring none.
        coarsest = max(float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(g))
        floor = at_floor(g, model.terms, jnp.maximum(eps, coarsest))
        proposal, solved = propose(model, g, radius, near | floor, small)
        energy = real(inner(jax.tree.map(magnitudes, best), model.terms))
        steps, largest = real(tree.global_norm(proposal.step)), jnp.maximum(state.largest, size_x)
        root = jnp.sqrt(real(objective.tol))
        loose = jnp.maximum(objective.tol, eps) ** (2 / 3) / 10
        is_flat = ~begun & (2 * proposal.newton <= loose * size_h * steps * steps)
        short = ~proposal.at_radius & (steps <= root * largest)
        settled = near & short & (proposal.newton <= jnp.where(is_flat, loose, objective.tol**2) * energy)
        idles = (idle > 0) | (rejected > 0) | (proposal.newton <= ROUNDING * eps * jnp.abs(f))
        # The end by the gradient, with a short Newton step; and that at a degenerate minimum.
        invisible = ((idle > 0) | (rejected > 0)) & (proposal.newton <= ROUNDING * eps * jnp.abs(f))
        done = small & ((best_norm == 0) | invisible | short)
        rho = steps / jnp.where(length > 0, length, 1)
        falls = jnp.log(best_norm / there[-1]) - jnp.log(rho) / (1 - rho)
        powers = begun & accepted & ~at_radius & ~proposal.at_radius & (rho > POWER[0]) & (rho < POWER[1])
        degenerate = near & powers & (jnp.abs(falls) < 0.1) & (steps <= 10 * root * jnp.maximum(size_x, 1))
        late = jnp.where(small, state.late + 1, 0)

        started = begun | (jnp.isfinite(f) & jnp.isfinite(best_norm))
        status = jnp.select(
            [
                ~started,
                done & ~proposal.saddle,
                (floor & idles | settled | degenerate) & ~proposal.saddle,
                begun & (value == -jnp.inf),
                (rises >= RISES),
                begun & unmoved | (idle >= IDLE) | (rejected >= TRIES) | (late >= LATE),
            ],
            [
                *(Status.NON_FINITE, Status.CONVERGED_GRADIENT, Status.CONVERGED_STEP),
                *(Status.UNBOUNDED, Status.LINE_SEARCH_FAILED, Status.STALLED),
            ],
            Status.RUNNING,
        ).astype(jnp.int32)
        updates = jax.tree.map(jnp.subtract, best, params)
        new_state = TrustState(
            *(f, best_aux, g, proposal, radius, memory, state.products + built + solved),
            *(first_norm, least_norm, largest, late, idle, rejected, rises, jnp.array(True)),
        )
        new_state = tree.keep_dtypes(new_state, state)
        return best, new_state, Info(f, best_aux, g, updates, status, jnp.ones([], jnp.int32))

    return init, step


def at_floor(g: Any, terms: Any, eps: Any) -> jax.Array:
    """Whether every component of the gradient is within rounding of the sum of its terms, a bool scalar.

    Such a point is a stationary one of a function whose coefficients differ by a few ε (Oettli & Prager, 1964),
    whatever the scale of the function and of each parameter.
    """
    parts = lambda x: (x.real, x.imag) if jnp.iscomplexobj(x) else (x,)
    leaves = [part for x in jax.tree.leaves(terms) for part in parts(x)]
    pairs = zip([part for x in jax.tree.leaves(g) for part in parts(x)], leaves, strict=True)
    within = [jnp.all(jnp.abs(g) <= ROUNDING * eps * t) for g, t in pairs]
    return jnp.all(jnp.array(within)) & jnp.any(jnp.array([jnp.any(t > 0) for t in leaves]))


def magnitudes(x: Any) -> Any:
    """|x|, of complex numbers that of both parts."""
    return jax.lax.complex(jnp.abs(x.real), jnp.abs(x.imag)) if jnp.iscomplexobj(x) else jnp.abs(x)
