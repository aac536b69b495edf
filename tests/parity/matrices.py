"""Matrix methods against their papers, and against the packages that have them: rows as in cases.py.

Only the matrix moves where a rule has no counterpart for other leaves.
"""

_ONLY = "labels={'b': 'adam', 's': 'adam', 'w': 'first_out'}, adam_learning_rate=0.0"

# (id, function of authors.py, its arguments, ours, note)
AUTHORS = [
    (
        "normuon",
        "normuon",
        {"lr": 0.02, "b1": 0.8, "b2": 0.9, "weight_decay": 0.1, "eps": 1e-3},
        f"normuon(0.02, beta=0.8, b2=0.9, eps=1e-3, weight_decay=0.1, nesterov=False, debias=False, {_ONLY})",
        "the paper",
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
]
