"""Matrix methods and their decay against their papers, and against the packages that have them: rows as in cases.py.

Only the matrix moves where a rule has no counterpart for other leaves.
"""

_MATRIX = "{'b': 'rest', 's': 'rest', 'w': 'matrix'}"
_ONLY = "labels={'b': 'adam', 's': 'adam', 'w': 'first_out'}, adam_learning_rate=0.0"


def _alone(rules: str) -> str:
    """The chain of these rules for the matrix."""
    return f"partition({{'matrix': chain({rules}), 'rest': set_to_zero()}}, {_MATRIX})"


def _but_scalars(rule: str) -> str:
    return f"chain({rule}, freeze({{'b': False, 's': True, 'w': False}}))"


# (id, function of authors.py, its arguments, ours, note)
AUTHORS = [
    (
        "cautious_decay",
        "cautious_adamw",
        {"lr": 0.02, "b2": 0.95, "weight_decay": 0.5},
        "chain(scale_by_adam(b2=0.95), add_cautious_decay(0.5), scale_by_learning_rate(0.02))",
        "weights whose update is zero decay",
    ),
    (
        "normuon",
        "normuon",
        {"lr": 0.02, "b1": 0.8, "b2": 0.9, "weight_decay": 0.1, "eps": 1e-3},
        f"normuon(0.02, beta=0.8, b2=0.9, eps=1e-3, weight_decay=0.1, nesterov=False, debias=False, {_ONLY})",
        "the paper",
    ),
    (
        "shampoo_every",
        "shampoo",
        {"lr": 0.02, "b2": 0.9, "eps": 1e-3, "every": 3, "block_size": 2},
        _alone("scale_by_shampoo(0.9, 1e-3, 3.0, 2, identity(), ridge=0.0), scale_by_learning_rate(0.02)"),
        "roots every three steps, blocks of two, the norm of the gradient",
    ),
    (
        "shampoo_one_side",
        "shampoo",
        {"lr": 0.02, "b2": 0.8, "ridge": 1e-2, "max_aspect": 1.2},
        _alone("scale_by_shampoo(0.8, 0.0, 1.0, graft=identity(), ridge=1e-2, max_aspect=1.2), sgd(0.02)"),
        "L has three rows, R two, so R alone",
    ),
]

# (id, module:class, its arguments, ours, note)
PACKAGES = [
    (
        "normuon_kept",
        "pytorch_optimizer:NorMuon",
        {"lr": 0.02, "beta2": 0.9, "weight_decay": 0.1, "adamw_lr": 0.0, "eps": 1e-30},
        f"normuon(0.02, b2=0.9, eps=1e-30, weight_decay=0.1, consistent_rms=None, debias=False, {_ONLY})",
        "iterates in bfloat16, in float64 here",
    ),
    (
        "normuon_rms",
        "pytorch_optimizer:NorMuon",
        {"lr": 0.02, "momentum": 0.8, "nesterov": False, "update_scale": "match_rms", "adamw_lr": 0.0, "eps": 1e-30},
        f"normuon(0.02, beta=0.8, eps=1e-30, nesterov=False, {_ONLY})",
        "likewise",
    ),
    (
        "shampoo",
        "pytorch_optimizer:Shampoo",
        {"lr": 0.1, "matrix_eps": 0.1},
        _alone("scale_by_shampoo(None, 0.1, 1.0, ridge=0.0), sgd(0.1)"),
        "ε is where its sums start",
    ),
    (
        "shampoo_grafted",
        "pytorch_optimizer:ScalableShampoo",
        {
            **{"lr": 0.02, "matrix_eps": 0.01, "diagonal_eps": 1e-30, "block_size": 2, "graft_type": 2},
            **{"weight_decay": 0.1, "decoupled_weight_decay": True, "use_svd": True, "shape_interpretation": False},
            **{"preconditioning_compute_steps": 1, "start_preconditioning_step": 1, "nesterov": False},
        },
        _alone(
            "scale_by_shampoo(None, 0.01, 1.0, 2, scale_by_rss(0.0, 0.0), ridge=0.0), trace(0.8),"
            " add_decayed_weights(0.1), scale_by_learning_rate(0.02)"
        ),
        "with betas of 0.8 and 1: sums; the length of Adagrad's step",
    ),
    (
        "psgd_kron",
        "kron_torch:Kron",
        {"lr": 0.01},
        _but_scalars("psgd_kron(0.01)"),
        "given our draws, its solve, of float32, is in float64 here, and its update is of the gradient without noise",
    ),
    (
        "psgd_kron_all",
        "kron_torch:Kron",
        {
            **{"lr": 0.02, "b1": 0.8, "weight_decay": 0.1, "preconditioner_update_probability": 0.5},
            **{"memory_save_mode": "one_diag", "momentum_into_precond_update": False, "precond_lr": 0.2},
            **{"precond_init_scale": 0.5},
        },
        _but_scalars(
            "psgd_kron(0.02, 0.8, 0.1, {'b': False, 's': False, 'w': True}, 0.5, memory_save_mode='one_diag',"
            " precond_lr=0.2, precond_init_scale=0.5, momentum_into_precond_update=False)"
        ),
        "likewise",
    ),
    (
        "psgd_kron_diagonal",
        "kron_torch:Kron",
        {"lr": 0.02, "max_size_triangular": 2, "preconditioner_update_probability": 1.0},
        _but_scalars("psgd_kron(0.02, update_probability=1.0, max_size_triangular=2)"),
        "likewise",
    ),
]
