"""The problem that every peer and we descend: 9 coordinates, 50 steps, float64.

    g = live · (curvature · (p - target) + noise_t)

Nothing but elementwise + - ·, so NumPy, PyTorch and JAX see the same gradient to the last bit or two. It depends on the
current parameters, so an error at one step is carried to all later ones. Noise makes signs change; curvatures from
1e-3 to 50 make gradients so different in size that an ε, or its place, cannot hide; a burst in the middle makes a
running maximum (AMSGrad) outlive its average; one coordinate sleeps at first and again later, one is dead: its gradient
is exactly zero at every step.
"""

import numpy as np

STEPS = 50

START = {
    "b": np.array([-0.7, 0.4]),
    "s": np.array(1.1),
    "w": np.array([[0.5, -1.2], [2.0, -0.3], [0.8, 1.5]]),
}
TARGET = {
    "b": np.array([0.6, 0.1]),
    "s": np.array(-0.4),
    "w": np.array([[-0.9, 0.3], [0.2, 1.4], [-1.1, 0.0]]),
}
CURVATURE = {
    "b": np.array([0.3, 50.0]),
    "s": np.array(8.0),
    "w": np.array([[1.0, 20.0], [0.05, 3.0], [1e-3, 1.0]]),
}
AMPLITUDE = {
    "b": np.array([0.2, 4.0]),
    "s": np.array(3.0),
    "w": np.array([[0.8, 10.0], [0.03, 2.0], [2e-4, 1.0]]),
}


def _noise() -> dict:
    """Noise [STEPS, *shape] for each leaf: uniform, six times as strong at the steps 10 to 12.

    `RandomState` is the one generator whose stream NumPy promises never to change; uniform numbers need no libm.
    """
    random = np.random.RandomState(0)
    burst = np.where((np.arange(STEPS) >= 10) & (np.arange(STEPS) < 13), 6.0, 1.0)
    return {
        name: np.moveaxis(random.uniform(-1.0, 1.0, size=(*amplitude.shape, STEPS)) * burst, -1, 0) * amplitude
        for name, amplitude in AMPLITUDE.items()
    }


def _live() -> dict:
    """1 where a coordinate has a gradient, 0 where it has none, [STEPS, *shape] for each leaf."""
    live = {name: np.ones((STEPS, *start.shape)) for name, start in START.items()}
    live["b"][:6, 0] = 0.0  # asleep when the run starts: second moments are still zero
    live["b"][20:25, 0] = 0.0  # and once more, when they are not
    live["w"][:, 2, 1] = 0.0  # dead
    return live


NOISE = _noise()
LIVE = _live()


def gradient(params: dict, noise: dict, live: dict) -> dict:
    """The gradient at `params`; `noise` and `live` are one step's slices of `NOISE` and `LIVE`."""
    return {name: live[name] * (CURVATURE[name] * (p - TARGET[name]) + noise[name]) for name, p in params.items()}


def at_step(t: int) -> tuple[dict, dict]:
    """The slices (noise, live) of step t."""
    return {name: x[t] for name, x in NOISE.items()}, {name: x[t] for name, x in LIVE.items()}


def flat(trajectory: dict) -> np.ndarray:
    """[STEPS, *shape] for each leaf -> [STEPS, 9], leaves in the order of their names."""
    return np.concatenate([np.asarray(trajectory[name]).reshape(STEPS, -1) for name in sorted(trajectory)], axis=1)
