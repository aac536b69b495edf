"""The 27 nonlinear regressions of NIST's Statistical Reference Datasets.

Each model is a function of x, an array [m] (of Nelson [m, 2]), and its parameters, scalars; it returns an array [m].
The data file is made by tests/solvers/make_nist.py.
"""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np

DATA = json.loads(Path(__file__).with_name("nist.json").read_text())


def saturation(x, b1, b2):
    """BoxBOD and Misra1a: growth to a limit."""
    return b1 * (1 - jnp.exp(-b2 * x))


def chwirut(x, b1, b2, b3):
    """Chwirut1 and 2: response of an ultrasonic gauge to distance."""
    return jnp.exp(-b1 * x) / (b2 + b3 * x)


def gauss(x, b1, b2, b3, b4, b5, b6, b7, b8):
    """Gauss1 to 3: two peaks on a decaying baseline."""
    return b1 * jnp.exp(-b2 * x) + b3 * jnp.exp(-((x - b4) ** 2) / b5**2) + b6 * jnp.exp(-((x - b7) ** 2) / b8**2)


def lanczos(x, b1, b2, b3, b4, b5, b6):
    """Lanczos1 to 3: three decays."""
    return b1 * jnp.exp(-b2 * x) + b3 * jnp.exp(-b4 * x) + b5 * jnp.exp(-b6 * x)


def cubics(x, b1, b2, b3, b4, b5, b6, b7):
    """Hahn1 and Thurber: a ratio of cubic polynomials."""
    return (b1 + b2 * x + b3 * x**2 + b4 * x**3) / (1 + b5 * x + b6 * x**2 + b7 * x**3)


def enso(x, b1, b2, b3, b4, b5, b6, b7, b8, b9):
    """ENSO: a yearly wave and two of unknown periods."""
    wave = lambda period, a, b: a * jnp.cos(2 * jnp.pi * x / period) + b * jnp.sin(2 * jnp.pi * x / period)
    return b1 + wave(12, b2, b3) + wave(b4, b5, b6) + wave(b7, b8, b9)


MODELS = {
    "Bennett5": lambda x, b1, b2, b3: b1 * (b2 + x) ** (-1 / b3),
    "BoxBOD": saturation,
    "Chwirut1": chwirut,
    "Chwirut2": chwirut,
    "DanWood": lambda x, b1, b2: b1 * x**b2,
    "ENSO": enso,
    "Eckerle4": lambda x, b1, b2, b3: (b1 / b2) * jnp.exp(-0.5 * ((x - b3) / b2) ** 2),
    "Gauss1": gauss,
    "Gauss2": gauss,
    "Gauss3": gauss,
    "Hahn1": cubics,
    "Kirby2": lambda x, b1, b2, b3, b4, b5: (b1 + b2 * x + b3 * x**2) / (1 + b4 * x + b5 * x**2),
    "Lanczos1": lanczos,
    "Lanczos2": lanczos,
    "Lanczos3": lanczos,
    "MGH09": lambda x, b1, b2, b3, b4: b1 * (x**2 + x * b2) / (x**2 + x * b3 + b4),
    "MGH10": lambda x, b1, b2, b3: b1 * jnp.exp(b2 / (x + b3)),
    "MGH17": lambda x, b1, b2, b3, b4, b5: b1 + b2 * jnp.exp(-x * b4) + b3 * jnp.exp(-x * b5),
    "Misra1a": saturation,
    "Misra1b": lambda x, b1, b2: b1 * (1 - (1 + b2 * x / 2) ** -2),
    "Misra1c": lambda x, b1, b2: b1 * (1 - (1 + 2 * b2 * x) ** -0.5),
    "Misra1d": lambda x, b1, b2: b1 * b2 * x / (1 + b2 * x),
    "Nelson": lambda x, b1, b2, b3: b1 - b2 * x[:, 0] * jnp.exp(-b3 * x[:, 1]),
    "Rat42": lambda x, b1, b2, b3: b1 / (1 + jnp.exp(b2 - b3 * x)),
    "Rat43": lambda x, b1, b2, b3, b4: b1 / (1 + jnp.exp(b2 - b3 * x)) ** (1 / b4),
    "Roszman1": lambda x, b1, b2, b3, b4: b1 - b2 * x - jnp.arctan(b3 / (x - b4)) / jnp.pi,
    "Thurber": cubics,
}


def data(name):
    """{"x": [m] or [m, 2], "y": [m], "starts": [2, n], "params" and "errors": [n], "squares": scalar}, float64.

    The last three are certified: parameters, their standard errors, the sum of squares. y of Nelson is its logarithm.
    """
    found = {key: np.asarray(value, float) for key, value in DATA[name].items()}
    return {**found, "y": np.log(found["y"])} if name == "Nelson" else found


def problem(name):
    """Residuals of parameters [n], starts [2, n], certified parameters and errors [n], half the sum of squares."""
    found = data(name)
    x, y = found["x"], found["y"]

    def residual(b):
        return MODELS[name](jnp.asarray(x, b.dtype), *b) - jnp.asarray(y, b.dtype)

    return residual, found["starts"], found["params"], found["errors"], float(found["squares"]) / 2
