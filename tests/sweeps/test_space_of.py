import jax
import numpy as np
import optax
import pytest

import jaxopt_lite as jo
from jaxopt_lite.sweeps.distributions import log_uniform, one_minus_log_uniform, uniform
from jaxopt_lite.sweeps.space import space, space_of


def test_ranges_lie_around_the_values():
    assert space_of(jo.adamw(1e-3, b2=0.99)) == {
        "adamw.learning_rate": log_uniform(1e-4, 1e-2),
        "adamw.b1": one_minus_log_uniform(0.0, 0.99),
        "adamw.b2": one_minus_log_uniform(0.9, 0.999),
        "adamw.weight_decay": log_uniform(1e-5, 1e-3),
    }
    assert space_of(jo.sgd(0.1), decades=4) == {"sgd.learning_rate": log_uniform(1e-3, 10.0)}


def test_eps_counts_and_zeros_are_left_out_unless_asked_for():
    schedule = jo.warmup_cosine_decay_schedule(0.0, 3e-3, 10, 1000)
    optimizer = jo.chain(jo.clip_by_global_norm(1.0), jo.adam(schedule))
    names = set(space_of(optimizer))
    assert {"clip_by_global_norm.max_norm", "adam.learning_rate.peak_value", "adam.b1", "adam.b2"} <= names
    assert not {name for name in names if "eps" in name or "steps" in name or "init_value" in name}
    more = space_of(optimizer, include=("eps", "warmup_steps"))
    assert set(more) - names == {"adam.eps", "adam.learning_rate.warmup_steps"}
    assert more["adam.eps"] == log_uniform(1e-9, 1e-7)


def test_fractions_are_uniform():
    assert space_of(jo.lookahead(jo.sgd(0.1), 5, 0.5)) == {
        "lookahead.slow_step_size": uniform(0.0, 1.0),
        "lookahead.sgd.learning_rate": log_uniform(0.01, 1.0),
    }


def test_names_tell_the_decays_of_lifted_factories():
    proposal = space_of(jo.lift(optax.adan)(1e-3))
    assert proposal["adan.b1"] == one_minus_log_uniform(0.8, 0.998)
    assert proposal["adan.learning_rate"] == log_uniform(1e-4, 1e-2)


def test_ranges_that_the_optimizer_refuses_are_left_out():
    assert "scale_by_radam.threshold" not in space_of(jo.scale_by_radam())


@pytest.mark.parametrize(
    "optimizer",
    [
        jo.sgd(0.1, momentum=0.9),
        jo.adam(1e-3, nesterov=True),
        jo.chain(jo.clip(1.0), jo.adam(1e-3), jo.adam(1e-2)),
        jo.chain(jo.partition({"a": jo.sgd(0.1), "b": jo.adam(1e-3)}, lambda params: "a")),
        jo.sgd(jo.piecewise_constant_schedule(0.1, {10: 0.5}), momentum=0.5),
        jo.lion(1e-4),
        jo.noisy_sgd(0.1, key=jax.random.key(0)),
        jo.lookahead(jo.adam(1e-3), 5, 0.5),
    ],
    ids=repr,
)
def test_replace_takes_every_config(optimizer):
    proposal = space(space_of(optimizer))
    values = jo.hyperparameters(optimizer)
    points = np.random.default_rng(0).random((4, len(proposal.names)))
    for config in proposal.configs(proposal.from_unit(points)):
        changed = jo.hyperparameters(jo.replace(optimizer, config))
        for path, value in config.items():
            assert changed[path] == value
        assert set(changed) == set(values)
    for dimension in proposal.dimensions:
        assert dimension.axis.low <= values[dimension.name] <= dimension.axis.high


def test_a_proposal_may_stand_inside_another_space():
    s = space({"optimizer": space_of(jo.sgd(0.1)), "momentum": uniform(0, 1)})
    assert s.names == ("optimizer.sgd.learning_rate", "momentum")
    config = s.configs(s.from_unit(np.full((1, 2), 0.5)))[0]
    assert jo.replace(jo.sgd(0.5), config["optimizer"]) == jo.sgd(float(config["optimizer"]["sgd.learning_rate"]))


def test_bad_calls_say_what_is_wrong():
    with pytest.raises(TypeError, match="space_of: optimizer must be a transformation or a schedule"):
        space_of(optax.adam(1e-3))
    with pytest.raises(ValueError, match="nothing to propose for identity"):
        space_of(jo.identity())
    with pytest.raises(ValueError, match="there is no 'epsilon' to include"):
        space_of(jo.adam(1e-3), include=("epsilon",))
    with pytest.raises(ValueError, match=r"no range around adam\.eps_root = 0\.0: it must be a number above 0"):
        space_of(jo.adam(1e-3), include=("eps_root",))
    with pytest.raises(TypeError, match="include must be a sequence of names"):
        space_of(jo.adam(1e-3), include="eps")
    with pytest.raises(ValueError, match="decades must be a number above 0"):
        space_of(jo.adam(1e-3), decades=0)
    with pytest.raises(TypeError, match="traced"):
        jax.jit(lambda lr: space_of(jo.sgd(lr)) and lr)(0.1)
