"""What a trial function reads of its config: dimensions that it never reads are told, and nothing else is."""

import copy
import json
import re

import jax
import jax.numpy as jnp
import pytest

import jaxopt_lite as jo

TWO = {"learning_rate": jo.uniform(0.1, 0.2), "momentum": jo.uniform(0.1, 0.9)}
NESTED = {
    "opt": TWO,
    "rule": jo.choice({"a": {"x": jo.uniform(0.1, 1.0)}, "b": {"y": jo.uniform(0.1, 1.0)}, "c": {}}),
    "size": jo.choice([1, 2]),
}


def task(size=1, factor=1.0):
    """Of a parameter that is pulled to zero."""
    return jo.Task(lambda key: jnp.ones(size), lambda params, batch, key: factor * jnp.sum(params**2))


def sweep(trial, space, **given):
    given = {"trials": 8, "steps": 1, "eval_every": 1, "batch_size": None, **given}
    return jo.sweep(trial, space, metric="train.loss", **given)


def by_match(config):
    match config:
        case {"learning_rate": rate, **rest}:
            return task(), jo.sgd(rate, **rest)


def by_popping(config):
    rate = config.pop("learning_rate")
    return task(), jo.sgd(rate, momentum=config.pop("momentum", 0.0))


def when_traced(config):
    full = task()
    return jo.Task(full.init, lambda p, b, k: full.loss(p, b, k) * config["momentum"]), jo.sgd(config["learning_rate"])


def as_a_key(config):
    key = json.dumps({name: str(value) for name, value in sorted(config.items())})
    return task(), jo.sgd(len(key) * 1e-3)


READ = {
    "each": lambda c: (task(), jo.sgd(c["learning_rate"], momentum=c["momentum"])),
    "get": lambda c: (task(), jo.sgd(c.get("learning_rate"), momentum=c.get("momentum", 0.5), nesterov="n" in c)),
    "**": lambda c: (task(), jo.sgd(**c)),
    "dict": lambda c: (task(), jo.sgd(**dict(c))),
    "{**}": lambda c: (task(), jo.sgd(**{**c, "nesterov": True})),
    "|": lambda c: (task(), jo.sgd(**(c | {"nesterov": True}))),
    "|, from the right": lambda c: (task(), jo.sgd(**({"nesterov": True} | c))),
    "copy": lambda c: (task(), jo.sgd(**c.copy())),
    "copy.copy": lambda c: (task(), jo.sgd(**copy.copy(c))),
    "items": lambda c: (task(), jo.sgd(**{name: value for name, value in c.items()})),
    "values": lambda c: (task(), jo.sgd(*c.values())),
    "keys": lambda c: (task(), jo.sgd(**{name: c[name] for name in c})),
    "match": by_match,
    "pop": by_popping,
    "as a tree": lambda c: (task(), jo.sgd(**jax.tree.map(lambda x: 0.9 * x, c))),
    "with another tree": lambda c: (
        task(),
        jo.sgd(**jax.tree.map(jnp.multiply, c, {"learning_rate": 1, "momentum": 1})),
    ),
    "under jit": lambda c: (task(), jo.sgd(jax.jit(lambda c: c["learning_rate"] * c["momentum"])(c))),
    "replace": lambda c: (task(), jo.replace(jo.sgd(0.1, momentum=0.5), c)),
    "in the loss": when_traced,
    "as a key": as_a_key,
}


@pytest.mark.parametrize("way", READ)
def test_what_is_read_in_any_way_is_not_told(way):
    assert sweep(READ[way], TWO, trials=2).warnings == ()


def by_branch(config):
    rule, opt = config["rule"], config["opt"]
    factor = {"a": lambda: rule["x"], "b": lambda: rule["y"], "c": lambda: 1.0}[rule["name"]]()
    momentum = opt["momentum"] if config["size"] == 2 and rule["name"] == "b" else None
    return task(config["size"], factor), jo.sgd(opt["learning_rate"], momentum=momentum)


def by_presence(config):
    factor = config["rule"].get("x", 1.0) * config["rule"].get("y", 1.0)  # the name is not needed
    return task(config["size"], factor), jo.sgd(**config["opt"])


def of_one_branch(config):
    rule = config["rule"]
    factor = rule["x"] if rule["name"] == "a" else 1.0
    return task(config["size"], factor), jo.sgd(**config["opt"])


@pytest.mark.parametrize(
    ("trial", "space", "given", "says"),
    [
        (by_branch, NESTED, {"trials": 16}, None),
        (by_branch, NESTED, {"trials": 2}, None),  # some group may read more
        (by_presence, NESTED, {"trials": 16}, None),
        (
            of_one_branch,
            NESTED,
            {"trials": 16},
            "trial never reads rule.b.y, a dimension of the space; it reads opt.lear",
        ),
        (
            lambda c: (task(), jo.sgd(c["learning_rate"])),
            TWO,
            {},
            "trial never reads momentum, a dimension of the space; it reads learning_rate",
        ),
        (
            lambda c: (task(), jo.sgd(c["learning_rate"], momentum=c.get("momentun", 0.5))),
            {**TWO, "unused": 3},
            {"sampler": jo.tpe(2, 2)},
            "reads momentum, .* it reads learning_rate, and asks for momentun, which no config has",
        ),
        (
            lambda c: (task(), jo.sgd(0.1)),
            {**TWO, "size": jo.choice([1, 2])},
            {},
            "reads learning_rate, momentum, size, dimensions of the space; it reads nothing",
        ),
        (
            lambda c: (task(c["size"]), c["rule"]),
            {"rule": jo.choice([jo.sgd(0.1), jo.sgd(0.2), jo.adam(0.1)]), "size": jo.choice([1, 2]), **TWO},
            {"trials": 16},
            "reads learning_rate, momentum, dimensions of the space; it reads rule, size",
        ),
    ],
)
def test_a_dimension_that_no_group_reads_is_told(trial, space, given, says):
    found = [text for text in sweep(trial, space, **given).warnings if "never reads" in text]
    assert len(found) == (says is not None)
    if says is not None:
        assert re.search(says, found[0]), found[0]


def test_it_is_told_at_the_beginning_kept_and_told_again(tmp_path, capsys):
    trial = lambda c: (task(), jo.sgd(c["learning_rate"]))
    first = sweep(trial, TWO, directory=tmp_path, progress="lines")
    said = capsys.readouterr().err.splitlines()
    assert any("never reads momentum" in line for line in said[:2]) and "never reads momentum" in first.summary()
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [event["names"] for event in events if event["event"] == "unread"] == [["momentum"]]
    assert "never reads momentum" in sweep(trial, TWO, directory=tmp_path).summary()


@pytest.mark.parametrize(
    ("read", "says"),
    [
        (
            lambda c: c["lerning_rate"],
            r"config has no 'lerning_rate' \(did you mean 'learning_rate'\?\); it has 'learnin",
        ),
        (lambda c: c["opt"]["lr"], r"config\['opt'\] has no 'lr'; it has 'learning_rate', 'momentum'"),
        (lambda c: c["momentum"], r"'opt' \(with 'learning_rate', 'momentum'\)"),
        (lambda c: c["rule"]["z"], r"config\['rule'\] has no 'z'; it has 'name'"),
        (lambda c: c["opt"].pop("momentun"), r"config\['opt'\] has no 'momentun' \(did you mean 'momentum'\?\)"),
        (lambda c: c[0], "config has no 0; it has"),
        (lambda c: c.get("lerning_rate"), r"config has no 'lerning_rate' \(did you mean 'learning_rate'\?\)"),
    ],
)
def test_a_key_that_is_missing_is_answered_by_those_that_are_there(read, says):
    space = {"learning_rate": jo.uniform(0.1, 0.2), **NESTED}
    with pytest.raises((KeyError, TypeError)) as raised:  # learning_rate=None
        sweep(lambda c: (task(), jo.sgd(read(c))), space)
    assert any(re.search(f"sweep: .*{says}", note) for note in raised.value.__notes__)
    late = lambda c: (jo.Task(task().init, lambda p, b, k: jnp.sum(p) * read(c)), jo.sgd(0.1))
    result = sweep(late, space, trials=1, on_error="continue")
    assert re.search(f"(Key|Type)Error: .*{says}", result.trials[0].error), result.trials[0].error


def test_a_config_that_is_read_as_an_object_is_answered_by_how_to_read_it():
    with pytest.raises(
        AttributeError, match=r"a config is a dict, .* no attribute 'learning_rate'; .*config\['NAME'\]"
    ):
        sweep(lambda c: (task(), jo.sgd(c.learning_rate)), TWO)


def test_disabled_jit_is_refused_with_what_to_do(tmp_path):
    with jax.disable_jit(), pytest.raises(RuntimeError, match=r"with jax.disable_jit\(False\)"):
        sweep(READ["each"], TWO, directory=tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with jax.disable_jit(), jax.disable_jit(False):
        assert sweep(READ["each"], TWO, trials=1).status == "finished"
