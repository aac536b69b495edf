"""Rules as their authors published them, in NumPy, for one array at a time.

Each rule is a generator: prime it with `next`, then `send` it a gradient to get the next parameters. Letters are the
paper's; decays are written b1, b2, b3 in the sense of Adam, b·average + (1 - b)·new. Comments give the place in the
paper, and say where the authors' own code does something else.
"""

import itertools

import numpy as np


def adan(θ, *, lr, b1=0.98, b2=0.92, b3=0.99, eps=1e-8, weight_decay=0.0, proximal=True):
    """Xie et al., "Adan", 2022, arXiv:2208.06677, Algorithm 1, as in github.com/sail-sg/Adan, `adan.py`.

    The paper writes β for 1 - b. Bias corrections, a first difference of zero, and ε outside the corrected root are
    the code's. `proximal=False` is the code's `no_prox=True`.
    """
    m = v = n = np.zeros_like(θ)
    g_before = None
    for k in itertools.count(1):
        g = yield θ
        difference = np.zeros_like(g) if g_before is None else g - g_before
        m = b1 * m + (1 - b1) * g  # line 3
        v = b2 * v + (1 - b2) * difference  # line 4
        n = b3 * n + (1 - b3) * (g + b2 * difference) ** 2  # line 5; 1 - β₂ of the paper is b2, not 1 - b2
        η = lr / (np.sqrt(n / (1 - b3**k)) + eps)  # line 6
        step = η * (m / (1 - b1**k) + b2 * v / (1 - b2**k))  # line 7
        θ = (θ - step) / (1 + weight_decay * lr) if proximal else (1 - weight_decay * lr) * θ - step
        g_before = g


def lion(θ, *, lr, b1=0.9, b2=0.99, weight_decay=0.0):
    """Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023, arXiv:2302.06675, Algorithm 2."""
    m = np.zeros_like(θ)
    while True:
        g = yield θ
        c = b1 * m + (1 - b1) * g
        θ = θ - lr * (np.sign(c) + weight_decay * θ)
        m = b2 * m + (1 - b2) * g


def muon(θ, *, lr, beta=0.95, nesterov=True, weight_decay=0.0, eps=1e-7, adam_eps=1e-10):
    """Jordan et al., "Muon", 2024, as in github.com/KellerJordan/Muon, `muon.py`, without its casts to bfloat16.

    Weights of two axes are [out, in]; all others are Adam's with b2 = 0.95 and decoupled decay.
    """
    m, v = np.zeros_like(θ), np.zeros_like(θ)
    for t in itertools.count(1):
        g = yield θ
        if θ.ndim == 2:
            m = beta * m + (1 - beta) * g
            u = beta * m + (1 - beta) * g if nesterov else m
            u = max(1, u.shape[0] / u.shape[1]) ** 0.5 * newton_schulz(u, eps)
        else:
            m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g**2
            u = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.95**t)) + adam_eps)
        θ = (1 - lr * weight_decay) * θ - lr * u


def cautious_adamw(θ, *, lr, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0):
    """Chen et al., "Cautious Weight Decay", 2025, arXiv:2510.12402, Algorithm 1 with AdamW's update."""
    m = v = np.zeros_like(θ)
    for t in itertools.count(1):
        g = yield θ
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        u = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
        θ = θ - lr * (u + weight_decay * (u * θ >= 0) * θ)


def normuon(θ, *, lr, b1=0.95, b2=0.95, nesterov=False, keeps_norm=False, weight_decay=0.0, eps=1e-8):
    """Li et al., "NorMuon", 2025, arXiv:2510.05491, Algorithm 1; all leaves but matrices [out, in] stay as they are.

    `keeps_norm=True` is github.com/zichongli5/NorMuon, `normuon.py`, which has Nesterov momentum too.
    """
    m, v = np.zeros_like(θ), 0.0
    while True:
        g = yield θ
        if θ.ndim != 2:
            continue
        m = b1 * m + (1 - b1) * g
        u = b1 * m + (1 - b1) * g if nesterov else m
        o = newton_schulz(u, eps)
        v = b2 * v + (1 - b2) * np.mean(o * o, axis=1, keepdims=True)  # of each row, a neuron
        normal = o / (np.sqrt(v) + eps)
        wanted = 0.2 * np.sqrt(o.size)
        if keeps_norm:
            wanted = max(1, o.shape[0] / o.shape[1]) ** 0.5 * np.linalg.norm(o)
        θ = (1 - lr * weight_decay) * θ - lr * wanted / np.linalg.norm(normal) * normal


def newton_schulz(u, eps):
    """Five steps of Jordan et al., 2024, from U / (‖U‖ + ε)."""
    x = u.T if u.shape[0] > u.shape[1] else u
    x = x / (np.sqrt(np.sum(x**2)) + eps)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if u.shape[0] > u.shape[1] else x


def shampoo(θ, *, lr, b2, eps=0.0, ridge=0.0, every=1, block_size=9, max_aspect=np.inf):
    """Shi et al., 2023, arXiv:2309.06497, Algorithms 1 and 2 without momentum, grafted with the gradient.

    Roots every few steps, blocks and ridge (`ridge_epsilon`, times the largest eigenvalue) as in Anil et al., 2020,
    arXiv:2002.09018. All leaves but matrices stay as they are.
    """
    blocks, roots = {}, {}
    for t in itertools.count():
        g = yield θ
        if θ.ndim != 2:
            continue
        u = np.zeros_like(g)
        for i, j in itertools.product(range(0, g.shape[0], block_size), range(0, g.shape[1], block_size)):
            here = np.s_[i : i + block_size, j : j + block_size]
            b = g[here]
            m, n = b.shape
            own = {"left": (b @ b.T, m < max_aspect * n), "right": (b.T @ b, n < max_aspect * m)}
            own = {side: square for side, (square, is_used) in own.items() if is_used}
            for side, square in own.items():
                a = b2 * blocks.get((i, j, side), 0.0) + (1 - b2) * square
                blocks[i, j, side] = a
                if t % every == 0:
                    values, vectors = np.linalg.eigh(a / (1 - b2 ** (t + 1)))
                    values = np.maximum(values, 0) + eps + ridge * values.max()
                    roots[i, j, side] = (vectors * values ** (-1 / (2 * len(own)))) @ vectors.T
            u[here] = roots.get((i, j, "left"), np.eye(m)) @ b @ roots.get((i, j, "right"), np.eye(n))
        θ = θ - lr * np.linalg.norm(g) / np.linalg.norm(u) * u


def signum(x, *, lr, b=0.9):
    """Bernstein et al., "signSGD", 2018, arXiv:1802.04434, Algorithm 2."""
    m = np.zeros_like(x)
    while True:
        g = yield x
        m = b * m + (1 - b) * g
        x = x - lr * np.sign(m)


def yogi(x, *, lr, b1=0.9, b2=0.999, eps=1e-3, initial=1e-6):
    """Zaheer et al., "Adaptive Methods for Nonconvex Optimization", NeurIPS 2018, Algorithm 2.

    Bias corrections and the start of v (but not of m, which is zero) are those of the authors' code in
    github.com/tensorflow/addons, `optimizers/yogi.py`: there ε is added before √v is corrected.
    """
    m, v = np.zeros_like(x), np.full_like(x, initial)
    for t in itertools.count(1):
        g = yield x
        m = b1 * m + (1 - b1) * g
        v = v - (1 - b2) * np.sign(v - g**2) * g**2
        x = x - lr * np.sqrt(1 - b2**t) / (1 - b1**t) * m / (np.sqrt(v) + eps)


def adabelief(θ, *, lr, b1=0.9, b2=0.999, eps=1e-16, weight_decay=0.0):
    """Zhuang et al., "AdaBelief", NeurIPS 2020, arXiv:2010.07468, Algorithm 2.

    ε is added twice: to s, where it stays, and to the corrected root. Decay is decoupled, as by default in
    github.com/juntang-zhuang/Adabelief-Optimizer; the rectification of its newer versions is left off.
    """
    m = s = np.zeros_like(θ)
    for t in itertools.count(1):
        g = yield θ
        m = b1 * m + (1 - b1) * g
        s = b2 * s + (1 - b2) * (g - m) ** 2 + eps
        θ = (1 - lr * weight_decay) * θ - lr * m / (1 - b1**t) / (np.sqrt(s / (1 - b2**t)) + eps)


def novograd(w, *, lr, b1=0.95, b2=0.98, eps=1e-8, weight_decay=0.0, eps_in_root=False):
    """Ginsburg et al., "NovoGrad", 2019, arXiv:1905.11286, Algorithm 1; v is one number for each layer.

    `eps_in_root=True` is `NovoGrad2` of github.com/NVIDIA/OpenSeq2Seq, `optimizers/novograd.py`.
    """
    m, v = np.zeros_like(w), None
    while True:
        g = yield w
        square = np.sum(g**2)
        v = square if v is None else b2 * v + (1 - b2) * square
        m = b1 * m + g / (np.sqrt(v + eps) if eps_in_root else np.sqrt(v) + eps) + weight_decay * w
        w = w - lr * m


def lamb(x, *, lr, b1=0.9, b2=0.999, eps=1e-6, weight_decay=0.0):
    """You et al., "Large Batch Optimization for Deep Learning", 2019, arXiv:1904.00962, Algorithm 2, φ(z) = z.

    A ratio with a zero norm is 1, as in github.com/tensorflow/addons, `optimizers/lamb.py`.
    """
    m = v = np.zeros_like(x)
    for t in itertools.count(1):
        g = yield x
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        u = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps) + weight_decay * x
        norm_x, norm_u = np.linalg.norm(x), np.linalg.norm(u)
        x = x - lr * (norm_x / norm_u if norm_x > 0 and norm_u > 0 else 1.0) * u


def lars(w, *, lr, momentum=0.9, weight_decay=0.0, trust=1e-3, nesterov=False, norm_of_sum=True):
    """You, Gitman & Ginsburg, "Large Batch Training of Convolutional Networks", 2017, arXiv:1708.03888, Algorithm 1.

    The paper's denominator is ‖g‖ + β‖w‖ (`norm_of_sum=False`); that of github.com/google-research/simclr,
    `lars_optimizer.py`, is ‖g + βw‖. They agree where β = 0.
    """
    v = np.zeros_like(w)
    while True:
        g = yield w
        decayed = g + weight_decay * w
        norm_w = np.linalg.norm(w)
        below = np.linalg.norm(decayed) if norm_of_sum else np.linalg.norm(g) + weight_decay * norm_w
        λ = trust * norm_w / below if norm_w > 0 and below > 0 else 1.0
        v = momentum * v + lr * λ * decayed
        w = w - (momentum * v + lr * λ * decayed if nesterov else v)


def amsgrad(x, *, lr, b1=0.9, b2=0.999, eps=1e-8):
    """Reddi, Kale & Kumar, "On the Convergence of Adam and Beyond", ICLR 2018, Algorithm 2: no bias corrections.

    ε is not in the paper; it keeps a coordinate without gradients from 0 / 0.
    """
    m = v = v_max = np.zeros_like(x)
    while True:
        g = yield x
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        v_max = np.maximum(v_max, v)
        x = x - lr * m / (np.sqrt(v_max) + eps)


def radam(θ, *, lr, b1=0.9, b2=0.999, eps=1e-30):
    """Liu et al., "On the Variance of the Adaptive Learning Rate", ICLR 2020, arXiv:1908.03265, Algorithm 2.

    Rectified where ρ > 4 (the authors' code and PyTorch say 5). The paper has no ε; see `amsgrad`.
    """
    m = v = np.zeros_like(θ)
    ρ_max = 2 / (1 - b2) - 1
    for t in itertools.count(1):
        g = yield θ
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        m_hat = m / (1 - b1**t)
        ρ = ρ_max - 2 * t * b2**t / (1 - b2**t)
        if ρ > 4:
            r = np.sqrt((ρ - 4) * (ρ - 2) * ρ_max / ((ρ_max - 4) * (ρ_max - 2) * ρ))
            θ = θ - lr * r * m_hat * np.sqrt(1 - b2**t) / (np.sqrt(v) + eps)
        else:
            θ = θ - lr * m_hat


def adopt(θ, *, lr, b1=0.9, b2=0.9999, eps=1e-6):
    """Taniguchi et al., "ADOPT", 2024, arXiv:2411.02853, Algorithm 2, with the clipping at t^¼ of its authors' code."""
    m, v = np.zeros_like(θ), None
    for t in itertools.count():
        g = yield θ
        if v is None:
            v = g**2
            continue
        normal = np.clip(g / np.maximum(np.sqrt(v), eps), -(t**0.25), t**0.25)
        m = b1 * m + (1 - b1) * normal
        v = b2 * v + (1 - b2) * g**2
        θ = θ - lr * m


def simplified_ademamix(θ, *, lr, b1=0.99, b2=0.95, alpha=0.0, eps=1e-8, weight_decay=0.0):
    """Morwani et al., "Connections between Schedule-Free Optimizers, AdEMAMix, and Accelerated SGD Variants", 2025,
    arXiv:2502.02431, Section 5, with the bias correction of Adam for the mean square.
    """
    m = v = np.zeros_like(θ)
    for t in itertools.count(1):
        g = yield θ
        m = b1 * m + g
        v = b2 * v + (1 - b2) * g**2
        θ = θ - lr * ((m + alpha * g) / (np.sqrt(v / (1 - b2**t)) + eps) + weight_decay * θ)
