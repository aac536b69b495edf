"""Newer rules against the packages of their authors, and against `pytorch-optimizer`: rows as in cases.py.

Left out, because no arguments make the two rules one:

    schedulefree, weight_decay_at_y    only where decay is of z
    DoG with weight decay at x₀        the same; its first distance is of all leaves together, as ours
    AdEMAMix with warm-ups             its schedules count steps from 1, ours (and Optax's) from 0
    ADOPT of pytorch-optimizer         clips at the fourth root of t + 1, not t: compared without clipping
    SOAP with weight decay             decays the parameters after the step, ours (as AdamW) before it
    SimplifiedAdEMAMix of the same     divides by the bias correction twice
"""

NO_DECAY = {"weight_decay": 0.0}

# (id, module:class, its arguments, ours, note)
PACKAGES = [
    ("sf_sgd", "schedulefree:SGDScheduleFree", {"lr": 0.03}, "schedule_free_sgd(0.03)"),
    (
        "sf_sgd_all",
        "schedulefree:SGDScheduleFree",
        {"lr": 0.03, "momentum": 0.8, "weight_decay": 0.2, "warmup_steps": 7, "r": 0.5, "weight_lr_power": 1.5},
        "schedule_free_sgd(0.03, 7, 0.8, weight_decay=0.2, weight_lr_power=1.5, r=0.5)",
    ),
    ("sf_adamw", "schedulefree:AdamWScheduleFree", {"lr": 0.02}, "schedule_free_adamw(0.02)"),
    (
        "sf_adamw_all",
        "schedulefree:AdamWScheduleFree",
        {
            **{"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.3, "warmup_steps": 9},
            **{"r": 1.0, "weight_lr_power": 1.0},
        },
        "schedule_free_adamw(0.05, 9, 0.8, 0.95, 1e-3, 0.3, 1.0, r=1.0)",
    ),
    (
        "prodigy",
        "prodigyopt:Prodigy",
        {"lr": 1.0},
        "prodigy(use_bias_correction=False)",
        "the authors' default has no bias correction, Optax's has",
    ),
    (
        "prodigy_all",
        "prodigyopt:Prodigy",
        {
            **{"lr": 0.7, "betas": (0.8, 0.95), "beta3": 0.9, "eps": 1e-3, "weight_decay": 0.2},
            **{"use_bias_correction": True, "d0": 1e-3, "d_coef": 1.5},
        },
        "prodigy(0.7, [0.8, 0.95], 0.9, 1e-3, 1e-3, 1.5, 0.2)",
    ),
    (
        "prodigy_safeguard",
        "prodigyopt:Prodigy",
        {"lr": 0.5, "safeguard_warmup": True, "use_bias_correction": True, "d0": 1e-4},
        "prodigy(0.5, safeguard_warmup=True, estim_lr0=1e-4)",
    ),
    (
        "dadapt_adam",
        "dadaptation:DAdaptAdam",
        {"lr": 1.0, "decouple": True},
        "dadapt_adamw(use_bias_correction=False)",
        "as with prodigy",
    ),
    (
        "dadapt_adam_all",
        "dadaptation:DAdaptAdam",
        {
            **{"lr": 0.6, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.2, "decouple": True, "d0": 1e-3},
            **{"use_bias_correction": True},
        },
        "dadapt_adamw(0.6, [0.8, 0.95], 1e-3, 1e-3, 0.2)",
    ),
    ("dog", "dog:DoG", {}, "dog()"),
    (
        "dog_all",
        "dog:DoG",
        {"lr": 0.8, "reps_rel": 1e-2, "eps": 1e-2, "weight_decay": 0.2},
        "dog(0.8, 1e-2, 1e-2, 0.2)",
    ),
    ("dog_first_rate", "dog:DoG", {"init_eta": 0.01}, 'dog(init_step=0.01, kind="learning_rate")'),
    (
        "ademamix",
        "pytorch_optimizer:AdEMAMix",
        {"lr": 0.01, "weight_decay": 0.1, "weight_decouple": True},
        "ademamix(0.01, weight_decay=0.1)",
    ),
    (
        "ademamix_all",
        "pytorch_optimizer:AdEMAMix",
        {
            **{"lr": 0.02, "betas": (0.8, 0.95, 0.99), "alpha": 3.0, "eps": 1e-3, "weight_decay": 0.1},
            **{"weight_decouple": True},
        },
        "ademamix(0.02, 0.8, 0.95, 0.99, 3.0, 1e-3, weight_decay=0.1)",
    ),
    (
        "adopt",
        "pytorch_optimizer:ADOPT",
        {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-3, "clip_lambda": None},
        "adopt(0.01, 0.8, 0.95, 1e-3, use_clipping=False)",
    ),
    (
        "soap",
        "pytorch_optimizer:SOAP",
        {"lr": 0.03, "betas": (0.8, 0.9), "shampoo_beta": 0.85, "precondition_frequency": 3, "eps": 1e-30, **NO_DECAY},
        "soap(0.03, 0.8, 0.9, 0.85, 1e-30, 0.0, None, 3.0)",
        "its QR, of float32, is left in float64 here; ε is added before the correction there",
    ),
    (
        "soap_one_side",
        "pytorch_optimizer:SOAP",
        {"lr": 0.03, "precondition_frequency": 1, "max_precondition_dim": 2, "eps": 1e-30, **NO_DECAY},
        "soap(0.03, eps=1e-30, weight_decay=0.0, precondition_frequency=1.0, max_precondition_dim=2)",
        "likewise",
    ),
]
