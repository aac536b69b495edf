import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from jaxopt_lite.sweeps.configs import split
from jaxopt_lite.sweeps.distributions import choice, int_uniform, log_uniform, uniform
from jaxopt_lite.sweeps.space import space
from tests.sweeps.cases import SPACE, sample


def test_a_config_is_split_and_joined():
    for config in SPACE.configs(sample(SPACE, 50)):
        part, numbers = split(config)
        assert numbers.dtype == np.float32
        assert numbers.shape == (len(part.names),)
        joined = part.join(numbers)
        assert joined == config
        assert list(joined) == list(config)
        assert split(joined)[0] == part
        assert joined is not config and joined["model"] is not config["model"]


def test_names_tell_what_the_numbers_are():
    part, numbers = split({"a": np.float32(1), "m": {"b": np.float32(2), "s": "x"}, "o": jo.sgd(0.1, momentum=0.9)})
    assert part.names == ("a", "m.b", "o.learning_rate", "o.momentum")
    np.testing.assert_array_equal(numbers, np.float32([1, 2, 0.1, 0.9]))


@pytest.mark.parametrize(
    ("one", "other"), [(1, True), (1, 1.0), (0, False), ("1", 1), ([1], [True]), (None, "None"), (0.0, 0)]
)
def test_types_tell_groups_apart(one, other):
    assert split({"a": one})[0] != split({"a": other})[0]
    assert split({"a": one})[0] == split({"a": one})[0]


def test_traced_numbers_do_not_tell_groups_apart_and_kinds_of_optimizers_do():
    assert split({"a": np.float32(1)})[0] == split({"a": np.float32(2)})[0]
    assert split({"a": np.float32(1)})[0] != split({"b": np.float32(1)})[0]
    assert split({"o": jo.adam(0.1)})[0] == split({"o": jo.adam(0.2, b1=0.5)})[0]
    assert split({"o": jo.adam(0.1)})[0] != split({"o": jo.adam(0.1, nesterov=True)})[0]
    assert split({"a": [32, 32]})[0] == split({"a": (32, 32)})[0]


def group(configs):
    """Indices and numbers of configs, by their static parts."""
    members = {}
    for i, (part, numbers) in enumerate(map(split, configs)):
        members.setdefault(part, []).append((i, numbers))
    return {part: ([i for i, _ in found], np.stack([x for _, x in found])) for part, found in members.items()}


def test_groups_hold_every_config_once():
    configs = SPACE.configs(sample(SPACE, 200))
    groups = group(configs)
    assert sorted(i for indices, _ in groups.values() for i in indices) == list(range(200))
    for part, (indices, numbers) in groups.items():
        assert numbers.shape == (len(indices), len(part.names))
        assert [part.join(row) for row in numbers] == [configs[i] for i in indices]


def test_a_group_is_rebuilt_under_vmap_in_one_program():
    s = space(
        {
            "optimizer": choice([jo.sgd(0.1), jo.sgd(0.2), jo.sgd(0.1, momentum=0.5)]),
            "scale": log_uniform(0.1, 10.0),
            "power": int_uniform(1, 3),
            "shift": int_uniform(0, 9, traced=True),
            "rule": choice({"a": {"x": uniform(0, 1)}, "b": {}}),
        }
    )
    traces = []

    def run(config):
        traces.append(config)
        updates, _ = config["optimizer"].update(jnp.ones(2), config["optimizer"].init(jnp.ones(2)))
        return config["scale"] ** config["power"] + config["shift"] + config["rule"].get("x", 0.0) + updates[0]

    configs = s.configs(sample(s, 64))
    for part, (indices, numbers) in group(configs).items():
        traces.clear()
        got = jax.jit(jax.vmap(lambda row, part=part: run(part.join(row))))(numbers)
        assert len(traces) == 1
        want = [float(run(configs[i])) for i in indices]
        np.testing.assert_allclose(got, want, rtol=1e-5)


def test_arrays_in_optimizers_are_traced_too():
    optimizer = jo.sgd(jo.piecewise_constant_schedule(0.1, {10: 0.5, 20: 0.1}))
    part, numbers = split({"o": optimizer})
    np.testing.assert_array_equal(numbers, np.concatenate([np.float32(x).ravel() for x in jax.tree.leaves(optimizer)]))
    assert part.join(numbers) == {"o": optimizer}
    traced = jax.jit(lambda row: part.join(row)["o"])(numbers)
    assert jax.tree.structure(traced) == jax.tree.structure(optimizer)
    assert [x.shape for x in jax.tree.leaves(traced)] == [np.shape(x) for x in jax.tree.leaves(optimizer)]


def test_a_config_may_be_changed_without_changing_others():
    one, other = SPACE.configs(SPACE.from_unit(np.zeros((2, len(SPACE.names)))))
    part, numbers = split(one)
    joined = part.join(numbers)
    for config in (one, joined):
        config["layers"].append(64)
        config["rule"].pop("name")
    assert other == part.join(numbers) == SPACE.configs(SPACE.from_unit(np.zeros((1, len(SPACE.names)))))[0]


def test_what_cannot_be_traced_is_refused():
    with pytest.raises(TypeError, match="must be hashable"):
        space({"a": jnp.ones(())})
    with pytest.raises(TypeError, match="must be a float"):
        split({"o": jo.noisy_sgd(0.1, key=jax.random.key(0))})
