"""A run is saved and resumes bit for bit: optimizer and state through pickle, or through text and a file of arrays."""

import io
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from tests.contract.table import GRADS, NAMES, PARAMS, RECIPES, TRANSFORMATIONS, assert_close
from tests.quick import quick_jit

ROWS = RECIPES | {name: TRANSFORMATIONS[name] for name in ("nested", "partition", "ema_params", "lookahead_reset")}


@quick_jit
def steps(optimizer, params, state, grads):
    """Parameters and state after a step for each of the gradients [n, ...]."""

    def step(carry, g):
        params, state = carry
        updates, state = optimizer.update(g, state, params)
        return (jo.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, state), grads)[0]


BEFORE, AFTER = (jax.tree.map(lambda g, part=part: g[part], GRADS) for part in (slice(0, 2), slice(2, 4)))


@pytest.mark.parametrize("name", ROWS)
def test_a_run_goes_on_where_it_was_saved(name):
    optimizer = ROWS[name]
    half = steps(optimizer, PARAMS, optimizer.init(PARAMS), BEFORE)
    expected = steps(optimizer, *half, AFTER)

    loaded, half_loaded = pickle.loads(pickle.dumps((optimizer, half)))
    assert loaded == optimizer
    assert_close(steps(loaded, *half_loaded, AFTER), expected, 0, "pickle")

    if not name.endswith("_key"):  # a random key as hyperparameter has no text
        file = io.BytesIO()
        save(file, optimizer, half)
        file.seek(0)
        loaded, half_loaded = load(file)
        assert loaded == optimizer
        assert_close(steps(loaded, *half_loaded, AFTER), expected, 0, "text and arrays")


def save(file, optimizer, half):
    leaves = jax.tree.leaves(half)
    arrays = [jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in leaves]
    arrays = [np.asarray(x, np.float32) if x.dtype == jnp.bfloat16 else np.asarray(x) for x in arrays]
    np.savez(file, *arrays, text=np.asarray(jo.spell(optimizer, defaults=True)))


def load(file):
    """What was saved; the structure comes from the optimizer, which knows what states it makes."""
    with np.load(file) as saved:
        optimizer = jo.parse(str(saved["text"]), names=NAMES)
        arrays = [saved[f"arr_{i}"] for i in range(len(saved.files) - 1)]
    like, structure = jax.tree.flatten(jax.eval_shape(lambda: (PARAMS, optimizer.init(PARAMS))))
    leaves = [
        jax.random.wrap_key_data(x) if jnp.issubdtype(as_.dtype, jax.dtypes.prng_key) else jnp.asarray(x, as_.dtype)
        for x, as_ in zip(arrays, like, strict=True)
    ]
    return optimizer, structure.unflatten(leaves)
