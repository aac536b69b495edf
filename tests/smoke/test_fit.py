"""A short run from end to end, for whatever JAX is installed."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_lite as jo


def test_a_line_is_learned(tmp_path):
    x = np.linspace(-1, 1, 64, dtype=np.float32)
    data = {"x": x, "y": 4 + 3 * x}

    def loss(params, batch, key):
        return jnp.mean((params["a"] + params["b"] * batch["x"] - batch["y"]) ** 2)

    task = jo.Task(lambda key: dict(zip("ab", jax.random.normal(key, (2,)), strict=True)), loss, data, data, data)
    optimizer = jo.adam(jo.cosine_decay_schedule(0.5, 200))
    result = jo.fit(task, optimizer, 200, 16, eval_every=50, seeds=2, directory=tmp_path)
    assert result.status == ["max_steps"] * 2
    np.testing.assert_allclose(result.params["a"], 4, atol=1e-2)
    np.testing.assert_allclose(result.params["b"], 3, atol=1e-2)
    assert (result.metrics["test.loss"] < 1e-3).all() and result.history["valid.loss"].shape == (2, 4)
    assert (tmp_path / "summary.json").exists()
