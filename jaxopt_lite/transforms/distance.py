"""Learning rates measured on the way: from the distance to the start, and from gradients.

    dog         η = r̄ / √(Σ ‖g‖² + ε),  r̄ = max ‖x - x₀‖       Ivgi et al., 2023, arXiv:2302.12022
    dowg        η = r̄² / √(Σ r̄² ‖g‖²)                           Khaled et al., 2023, arXiv:2305.16284
    d-adapt     d = max(d, Σ λ ⟨g, s⟩ / ‖s‖₁)                    Defazio & Mishchenko, 2023, arXiv:2301.07733
    prodigy     d = max(d, Σ d ⟨g, x₀ - x⟩ / ‖Σ d g‖₁)           Mishchenko & Defazio, 2023, arXiv:2306.06101

Norms and inner products are over the whole tree. Each has a learning rate beside it that is to stay at 1, or a schedule
that ends at 0: it multiplies the rate that was found.
"""

from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxopt_lite import tree
from jaxopt_lite.core import checks
from jaxopt_lite.core.numbers import Decay, NonNegative, Number, Positive, Range
from jaxopt_lite.core.schedule import LearningRate
from jaxopt_lite.core.transformation import transformation
from jaxopt_lite.transforms.mixtures import at

__all__ = ["dadapt_adamw", "prodigy", "scale_by_dog", "scale_by_dowg"]

Decays = Annotated[Number | list | tuple, Range(low=0.0, high=1.0, open_high=True, ndim=1)]


class DogState(NamedTuple):
    """Whether no step was made yet (bool), the start, the largest distance from it, and Σ ‖g‖²."""

    is_init_step: jax.Array
    init_params: Any
    max_dist: jax.Array
    sum_sq_norm_grads: jax.Array


class DowgState(NamedTuple):
    """The start, Σ r̄² ‖g‖², and r̄², the largest squared distance from the start."""

    init_params: Any
    weighted_sq_norm_grads: jax.Array
    estim_sq_dist: jax.Array


class DAdaptState(NamedTuple):
    """The averages of Adam, the sum s of gradients, d, the weighted numerator of its estimate, and steps (int32)."""

    exp_avg: Any
    exp_avg_sq: Any
    grad_sum: Any
    estim_lr: jax.Array
    numerator_weighted: jax.Array
    count: Any


class ProdigyState(NamedTuple):
    """As `DAdaptState`, and the start."""

    exp_avg: Any
    exp_avg_sq: Any
    grad_sum: Any
    params0: Any
    estim_lr: jax.Array
    numerator_weighted: jax.Array
    count: Any


@transformation(acts_on="coordinate")
def scale_by_dog(
    init_step: Positive = 1e-6,
    eps: Positive = 1e-8,
    *,
    kind: Literal["distance", "learning_rate", "heuristic"] = "heuristic",
):
    """r̄ / √(Σ ‖g‖² + ε) g: the distance travelled so far, over the gradients seen.

    The authors ask for an average of the iterates beside it: `chain(dog(), ema_params(0.999))`.

    Args:
        init_step: what the first step is made from, above 0.
        eps: ε, above 0.
        kind: what `init_step` is: "distance" is r̄ at first; "heuristic" is r̄ / (1 + ‖x₀‖) at first; "learning_rate"
            is the rate of the first step.

    Raises:
        ValueError: if update is called without params.

    Reference: Ivgi, Hinder & Carmon, "DoG is SGD's Best Friend: A Parameter-Free Dynamic Step Size Schedule", 2023,
        arXiv:2302.12022, Eq. (DoG).
    """

    def init(params):
        shapes_alone = any(isinstance(p, jax.ShapeDtypeStruct) for p in jax.tree.leaves(params))
        norm = 0.0 if shapes_alone else tree.global_norm(params)
        first = {"distance": 1.0, "heuristic": 1 + norm, "learning_rate": 0.0}[kind]
        max_dist = jnp.array(init_step * first, _real(params))
        start = jax.tree.map(tree.copy, params)
        return DogState(jnp.array(True), start, max_dist, jnp.zeros_like(max_dist))

    def update(grads, state, params=None, **extra):
        checks.require(params, "params", "scale_by_dog")
        moved = tree.global_norm(jax.tree.map(jnp.subtract, params, state.init_params))
        max_dist = jnp.maximum(state.max_dist, moved)
        squares = state.sum_sq_norm_grads + tree.global_norm(grads) ** 2
        eta = max_dist / jnp.sqrt(squares + eps)
        if kind == "learning_rate":
            eta = jnp.where(state.is_init_step, init_step, eta)
        state = DogState(jnp.array(False), state.init_params, max_dist, squares)
        return tree.scale(eta, grads), state

    return init, update


@transformation(acts_on="coordinate")
def scale_by_dowg(init_estim_sq_dist: Positive | None = None, eps: Positive = 1e-4):
    """r̄² / (√(Σ r̄² ‖g‖²) + ε) g: as DoG, with later gradients weighing more.

    Args:
        init_estim_sq_dist: r̄² at first, above 0; None is ε.
        eps: ε, above 0.

    Raises:
        ValueError: if update is called without params.

    Reference: Khaled, Mishchenko & Jin, "DoWG Unleashed: An Efficient Universal Parameter-Free Gradient Descent
        Method", 2023, arXiv:2305.16284, Algorithm 1.
    """

    def init(params):
        first = jnp.array(eps if init_estim_sq_dist is None else init_estim_sq_dist, _real(params))
        return DowgState(jax.tree.map(tree.copy, params), jnp.zeros_like(first), first)

    def update(grads, state, params=None, **extra):
        checks.require(params, "params", "scale_by_dowg")
        moved = tree.global_norm(jax.tree.map(jnp.subtract, params, state.init_params))
        square = jnp.maximum(state.estim_sq_dist, moved**2)
        weighted = state.weighted_sq_norm_grads + square * tree.global_norm(grads) ** 2
        eta = square / (tree.safe_sqrt(weighted) + eps)
        return tree.scale(eta, grads), DowgState(state.init_params, weighted, square)

    return init, update


@transformation(acts_on="coordinate")
def dadapt_adamw(
    learning_rate: LearningRate = 1.0,
    betas: Decays = (0.9, 0.999),
    eps: Positive = 1e-8,
    estim_lr0: Positive = 1e-6,
    weight_decay: NonNegative = 0.0,
    *,
    use_bias_correction: bool = True,
):
    """AdamW whose rate d is a lower bound on the distance to the solution, estimated on the way.

    Args:
        learning_rate: multiplies d, at least 0 and finite; a number or a schedule. Leave it at 1, or let it end at 0.
        betas: β₁ and β₂, decays of the mean gradient and the mean square, each in [0, 1).
        eps: ε, added to the root in the denominator, above 0.
        estim_lr0: d at first, above 0; small.
        weight_decay: λ, decoupled and multiplied by the rate, at least 0.
        use_bias_correction: multiply the rate by √(1 - β₂ᵗ) / (1 - β₁ᵗ), as Adam. The authors' code has it off.

    Raises:
        ValueError: if update is called without params, or betas are not two.

    Reference: Defazio & Mishchenko, "Learning-Rate-Free Learning by D-Adaptation", 2023, arXiv:2301.07733,
        Algorithm 5.
    """
    _check_two("dadapt_adamw", betas)

    def init(params):
        d = jnp.array(estim_lr0, _real(params))
        zeros = lambda: jax.tree.map(jnp.zeros_like, params)
        return DAdaptState(zeros(), _squares(params), zeros(), d, jnp.zeros_like(d), jnp.zeros([], jnp.int32))

    def update(grads, state, params=None, **extra):
        checks.require(params, "params", "dadapt_adamw")
        b1, b2 = betas[0], betas[1]
        b3, t = jnp.sqrt(b2), optax.safe_increment(state.count)
        rate = state.estim_lr * at(learning_rate, state.count) * _correction(b1, b2, t, use_bias_correction)
        scaled = jax.tree.map(lambda s, v: s / (tree.safe_sqrt(v) + eps), state.grad_sum, state.exp_avg_sq)
        product = rate * tree.inner(grads, scaled)

        def leaf(g, m, v, s):
            m = b1 * m + (1 - b1) * rate * g
            v = b2 * v + (1 - b2) * tree.abs_sq(g)
            return m, v, b3 * s + (1 - b3) * rate * g

        m, v, s = tree.map_leaves(leaf, 3, grads, state.exp_avg, state.exp_avg_sq, state.grad_sum)
        numerator = b3 * state.numerator_weighted + (1 - b3) * product
        d = jnp.maximum(state.estim_lr, _ratio(numerator, (1 - b3) * tree.sum_of_sizes(s)))
        step = lambda m, v, p: -weight_decay * rate * p - m / (tree.safe_sqrt(v) + eps)
        return jax.tree.map(step, m, v, params), DAdaptState(m, v, s, d, numerator, t)

    return init, update


@transformation(acts_on="coordinate")
def prodigy(
    learning_rate: LearningRate = 1.0,
    betas: Decays = (0.9, 0.999),
    beta3: Decay | None = None,
    eps: Positive = 1e-8,
    estim_lr0: Positive = 1e-6,
    estim_lr_coef: Positive = 1.0,
    weight_decay: NonNegative = 0.0,
    safeguard_warmup: bool = False,
    *,
    use_bias_correction: bool = True,
):
    """AdamW whose rate d follows the distance from the start, estimated on the way; quicker than D-Adaptation.

    Args:
        learning_rate: multiplies d, at least 0 and finite; a number or a schedule. Leave it at 1, or let it end at 0.
        betas: β₁ and β₂, decays of the mean gradient and the mean square, each in [0, 1).
        beta3: β₃, decay of the sums in the estimate of d, in [0, 1); None is √β₂.
        eps: ε, times d it is added to the root in the denominator; above 0.
        estim_lr0: d at first, above 0; small.
        estim_lr_coef: multiplies the estimate, above 0.
        weight_decay: λ, decoupled and multiplied by the rate, at least 0.
        safeguard_warmup: leave the learning rate out of the denominator of the estimate, for long warm-ups.
        use_bias_correction: multiply the rate by √(1 - β₂ᵗ) / (1 - β₁ᵗ), as Adam. The authors' code has it off.

    Raises:
        ValueError: if update is called without params, or betas are not two.

    Reference: Mishchenko & Defazio, "Prodigy: An Expeditiously Adaptive Parameter-Free Learner", 2023,
        arXiv:2306.06101, Algorithm 4.
    """
    _check_two("prodigy", betas)

    def init(params):
        d = jnp.array(estim_lr0, _real(params))
        zeros = lambda: jax.tree.map(jnp.zeros_like, params)
        start = jax.tree.map(tree.copy, params)
        return ProdigyState(
            *(zeros(), _squares(params), zeros(), start, d, jnp.zeros_like(d), jnp.zeros([], jnp.int32))
        )

    def update(grads, state, params=None, **extra):
        checks.require(params, "params", "prodigy")
        b1, b2 = betas[0], betas[1]
        b3 = jnp.sqrt(b2) if beta3 is None else beta3
        d, t = state.estim_lr, optax.safe_increment(state.count)
        rate = d * at(learning_rate, state.count) * _correction(b1, b2, t, use_bias_correction)
        weight = d / estim_lr0 * (d if safeguard_warmup else rate)
        product = tree.inner(grads, jax.tree.map(jnp.subtract, state.params0, params))

        def leaf(g, m, v, s):
            m = b1 * m + (1 - b1) * d * g
            v = b2 * v + (1 - b2) * d**2 * tree.abs_sq(g)
            return m, v, b3 * s + weight * g

        m, v, s = tree.map_leaves(leaf, 3, grads, state.exp_avg, state.exp_avg_sq, state.grad_sum)
        numerator = b3 * state.numerator_weighted + d / estim_lr0 * rate * product
        new_d = jnp.maximum(d, estim_lr_coef * _ratio(numerator, tree.sum_of_sizes(s)))
        step = lambda m, v, p: -weight_decay * rate * p - rate * m / (tree.safe_sqrt(v) + new_d * eps)
        return jax.tree.map(step, m, v, params), ProdigyState(m, v, s, state.params0, new_d, numerator, t)

    return init, update


def _real(params: Any) -> Any:
    """The widest real dtype of parameters."""
    leaves = jax.tree.leaves(params)
    return jnp.result_type(*[tree.real_dtype(tree.dtype_of(p)) for p in leaves]) if leaves else jnp.result_type(float)


def _squares(params: Any) -> Any:
    return jax.tree.map(lambda p: tree.real_full_like(p, 0), params)


def _correction(b1: Any, b2: Any, t: Any, is_on: bool) -> Any:
    return tree.safe_sqrt(1 - tree.power(b2, t)) / (1 - tree.power(b1, t)) if is_on else 1.0


def _ratio(a: jax.Array, b: jax.Array) -> jax.Array:
    """a / b, and 0 where b is 0: nothing is learned from gradients that were all zero."""
    return jnp.where(b == 0, 0, a / jnp.where(b == 0, 1, b))


def _check_two(who: str, betas: Any) -> None:
    if jnp.shape(betas)[-1:] != (2,):
        raise ValueError(f"{who}: betas must be two decays, got {betas!r}")
