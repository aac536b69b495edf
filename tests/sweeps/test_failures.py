"""Trials that fail: exactly those, whichever comes first, and also when a sweep is resumed or extended."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from jaxopt_lite.sweeps.engine import Advanced, Happened, Reply
from jaxopt_lite.sweeps.ledger import FAILED, FINISHED
from jaxopt_lite.sweeps.population import population_based
from tests.sweeps import small
from tests.train.tasks import TRAIN, VALID, init, loss

TASK = jo.Task(init, loss, TRAIN, VALID)
GIVEN = {"steps": 4, "batch_size": 4, "eval_every": 2, "progress": "none"}
MOMENTA = {"momentum": jo.uniform(0.0, 2.0)}
WARMUPS = {"warmup": jo.uniform(0.0, 500.0)}


def heavy(config):
    """Refused where momentum is 1 or more."""
    return TASK, jo.sgd(1e-3, momentum=config["momentum"])


def warmed(config):
    """Refused where the warm-up is not shorter than the whole."""
    return TASK, jo.sgd(jo.warmup_cosine_decay_schedule(0.0, 1e-2, config["warmup"], 400))


def picky(config):
    """Raises for one static value, whatever the numbers."""
    if config["hidden"] == 3:
        raise ValueError("three is too few")
    return TASK, jo.sgd(config["learning_rate"], momentum=config["momentum"])


LIMITS = {
    "momentum": (heavy, MOMENTA, 1.0, "sgd: momentum must be in"),
    "warmup": (warmed, WARMUPS, 400.0, "warmup_steps"),
}
HIDDEN = {**small.SPACE, "hidden": jo.choice([3, 4])}


def column(ledger, name):
    return np.array([config[name] for config in ledger.space.configs(ledger.table)])


def assert_failed(ledger, failing):
    """Exactly the trials of a mask have failed, and say why; all others are finished."""
    np.testing.assert_array_equal(ledger.status == FAILED, failing)
    assert (ledger.status[~failing] == FINISHED).all()
    assert set(ledger.errors) == set(np.flatnonzero(failing).tolist())
    for curve in ledger.curves.values():
        assert np.isnan(curve[failing]).all() and np.isfinite(curve[~failing]).all()


def assert_same_ledger(one, other):
    np.testing.assert_array_equal(one.status, other.status)
    np.testing.assert_array_equal(one.table, other.table)
    assert one.errors == other.errors
    for name, curve in other.curves.items():
        np.testing.assert_array_equal(one.curves[name], curve)


# Which trials fail


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("trials, seed", [(3, 0), (3, 1), (200, 0)])
def test_exactly_those_out_of_range_fail(name, trials, seed):
    trial, space, limit, message = LIMITS[name]
    result = jo.sweep(trial, space, trials, **GIVEN, seed=seed, on_error="continue")
    failing = column(result.ledger, name) >= limit
    assert trials < 200 or 10 < failing.sum() < 190
    assert_failed(result.ledger, failing)
    assert all(message in said for said in result.ledger.errors.values())
    if failing.any():
        first = int(np.argmax(failing))
        with pytest.raises(ValueError, match=rf"{message}.*, for trial {first} with \{{'{name}': .*: narrow the space"):
            jo.sweep(trial, space, trials, **GIVEN, seed=seed)


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("share", [[1.0, 0.5, 1.2], [0.5, 1.0, 1.2], [1.2, 1.0], [0.99, 1.0]])
def test_whichever_comes_first(name, share):
    trial, space, limit, _ = LIMITS[name]
    initial = [{name: limit * x} for x in share]
    result = jo.sweep(trial, space, len(share), **GIVEN, initial=initial, on_error="continue")
    assert_failed(result.ledger, np.array(share) >= 1)
    assert (result.best is None) == (min(share) >= 1)
    if share[0] >= 1:
        with pytest.raises(ValueError) as raised:
            jo.sweep(trial, space, len(share), **GIVEN, initial=initial)
        assert name in "".join([str(raised.value), *raised.value.__notes__]), "the config is named"


def test_a_sweep_of_failures_alone_has_a_result():
    result = jo.sweep(heavy, {"momentum": jo.uniform(1.1, 2.0)}, 4, **GIVEN, on_error="continue")
    assert result.best is None and len(result.ledger.errors) == 4
    assert "sgd: momentum must be" in result.trials[0].error
    assert "none" in repr(result) and str(result)


def test_numbers_that_reach_a_limit_by_a_curve_are_checked_too():
    def trial(config):  # the warm-up is longest in the middle of the range
        return warmed({"warmup": 2000 * config["x"] * (1 - config["x"])})

    result = jo.sweep(trial, {"x": jo.uniform(0.0, 1.0)}, 64, **GIVEN, on_error="continue")
    x = column(result.ledger, "x").astype(np.float64)
    assert_failed(result.ledger, 2000 * x * (1 - x) >= 400)


def test_what_is_not_a_number_fails_the_group():
    result = jo.sweep(picky, HIDDEN, 6, **GIVEN, on_error="continue")
    failing = column(result.ledger, "hidden") == 3
    assert_failed(result.ledger, failing)
    assert set(result.ledger.errors.values()) == {"ValueError: three is too few"}
    with pytest.raises(ValueError, match="three is too few") as raised:
        jo.sweep(picky, HIDDEN, 6, **GIVEN)
    assert any("sweep: trial was called with" in note and "'hidden': 3" in note for note in raised.value.__notes__)


def test_an_error_that_is_no_value_error_is_told_once_for_its_group():
    def missing(config):
        return TASK, jo.sgd(config["learning_rate"], momentum=config["hiden" if config["hidden"] == 3 else "momentum"])

    outcome, events, _ = small.drive(small.engine(trial=missing, spec=HIDDEN, trials=4, keep_on=True))
    (told,) = (event.facts for event in events if isinstance(event, Happened) and event.what == "groupfailed")
    assert sorted(outcome.ledger.errors) == told["trials"]
    assert "did you mean 'hidden'?" in told["error"]


def test_of_the_trials_that_did_not_fail_one_runs_to_its_end():
    rule = jo.successive_halving(2, asynchronous=True, concurrency=3)
    result = jo.sweep(heavy, MOMENTA, 12, 16, 4, 2, policy=rule, on_error="continue", progress="none")
    assert (result.ledger.status == FAILED).sum() == 6 and (result.ledger.status == FINISHED).any()


# Resumed and extended


@pytest.mark.parametrize("initial", [[], [1.5, 1.6], [0.5, 1.5]], ids=str)
def test_an_extended_sweep_is_the_sweep_and_old_failures_stay_alone(tmp_path, initial):
    given = {**GIVEN, "initial": [{"momentum": m} for m in initial], "on_error": "continue", "width": 2}
    first = jo.sweep(heavy, MOMENTA, len(initial) or 3, **given, directory=tmp_path)
    assert_failed(first.ledger, column(first.ledger, "momentum") >= 1)
    extended = jo.sweep(heavy, MOMENTA, 8, **given, directory=tmp_path)
    assert_failed(extended.ledger, column(extended.ledger, "momentum") >= 1)
    assert_same_ledger(extended.ledger, jo.sweep(heavy, MOMENTA, 8, **given).ledger)
    assert_same_ledger(jo.resume(tmp_path, trial=heavy, progress="none").ledger, extended.ledger)


def test_a_group_that_failed_is_tried_again_for_new_trials_only(tmp_path):
    works = []

    def trial(config):
        if config["hidden"] == 3 and not works:
            raise OSError("no such file")
        return TASK, jo.sgd(config["learning_rate"], momentum=config["momentum"])

    given = {**GIVEN, "on_error": "continue", "directory": tmp_path}
    first = jo.sweep(trial, HIDDEN, 4, **given)
    failing = column(first.ledger, "hidden") == 3
    assert_failed(first.ledger, failing)
    works.append(True)
    extended = jo.sweep(trial, HIDDEN, 8, **given)
    assert_failed(extended.ledger, np.append(failing, np.zeros(4, bool)))


@pytest.mark.parametrize("spec, trial", [(MOMENTA, heavy), (HIDDEN, picky)], ids=["numbers", "group"])
def test_a_sweep_with_failures_resumes_from_any_call(spec, trial):
    made = lambda: small.engine(trial=trial, spec=spec, trials=6, keep_on=True, batch_size=4)
    whole, events, _ = small.drive(made(), lambda event, i: Reply(points=2))
    assert (whole.ledger.status == FAILED).any() and (whole.ledger.status == FINISHED).any()
    for at in [i for i, event in enumerate(events) if isinstance(event, Advanced)]:
        _, _, saved = small.drive(made(), lambda event, i, at=at: Reply(stop=i >= at, points=2))
        again = made()
        again.groups.restore(saved)
        small.same(small.drive(again)[0], whole)


# Population-based training


def beta(config):
    return TASK, jo.adam(config["learning_rate"], b1=config["beta1"])


BETAS = {"learning_rate": jo.log_uniform(1e-3, 1e-1), "beta1": jo.choice([0.8, 0.9, 0.99], traced=True)}


@pytest.fixture(scope="module")
def evolve():
    """Eight trials of population-based training, by what is varied."""

    def run(**rule):
        policy = population_based(interval=2, resample=0.5, **rule)
        return jo.sweep(beta, BETAS, 8, 12, 4, 2, policy=policy, progress="none").ledger

    return run


def test_decays_are_left_alone_unless_named(evolve):
    ledger = evolve()
    assert ledger.decays == {"beta1"} and ledger.lineage
    for copy in ledger.lineage:  # the moments were made with the decay that is copied with them
        assert not copy.reset
    rows = {row[1] for row in ledger.proposed.tolist()}
    assert {copy.row[1] for copy in ledger.lineage} <= rows


def test_decays_named_by_the_user_are_varied_and_the_state_made_anew(evolve):
    ledger = evolve(dimensions=["learning_rate", "beta1"])
    assert ledger.lineage and all(copy.reset for copy in ledger.lineage)
    last = {}
    for copy in ledger.lineage:
        last[copy.trial] = copy.row
        assert copy.row[1] in (0, 1, 2), "a choice stays one of its options"
    varied = [copy for copy in ledger.lineage if copy.row[1] != _before(ledger, copy)[1]]
    assert varied, "some choice was drawn anew"
    for trial, row in last.items():
        np.testing.assert_array_equal(ledger.table[trial], row)


def _before(ledger, copy):
    """The row of a copy's source at that time."""
    rows = [other.row for other in ledger.lineage if other.trial == copy.source and other.step < copy.step]
    return rows[-1] if rows else ledger.proposed[copy.source]


def test_a_choice_alone_may_be_varied(evolve):
    ledger = evolve(dimensions=["beta1"], reset=False)
    assert not any(copy.reset for copy in ledger.lineage)
    assert {copy.row[0] for copy in ledger.lineage} <= set(ledger.proposed[:, 0])


def test_a_dimension_goes_by_its_name_in_the_space(evolve):
    with pytest.raises(ValueError, match="no traced number 'b1' in the space; there are learning_rate, beta1"):
        evolve(dimensions=["b1"])


@pytest.mark.parametrize("on_error", ["raise", "continue"])
def test_numbers_drawn_in_an_exchange_are_checked_like_the_first_ones(on_error):
    policy = population_based(interval=2, resample=1.0, dimensions=["momentum"])
    initial = [{"momentum": 0.1 * i} for i in range(8)]
    train = lambda: jo.sweep(
        heavy, MOMENTA, 8, 12, 4, 2, initial=initial, policy=policy, on_error=on_error, progress="none"
    )
    if on_error == "raise":
        with pytest.raises(ValueError, match="sgd: momentum must be in"):
            train()
    else:
        ledger = train().ledger
        assert (ledger.status[column(ledger, "momentum") >= 1] == FAILED).all()


# Wrong arguments


@pytest.mark.parametrize(
    "name, value",
    [
        ("trial", 3),
        ("spec", [jo.uniform(0.0, 1.0)]),
        ("trials", "3"),
        ("steps", 2.5),
        ("batch_size", "all"),
        ("eval_every", "2"),
        ("seeds", 0),
        ("sampler", "sobol"),
        ("policy", "run_all"),
        ("metric", 3),
        ("mode", "lowest"),
        ("seed", None),
        ("width", 0),
        ("initial", {"momentum": 0.5}),
        ("initial", [0.5]),
        ("directory", 3),
        ("independent", "yes"),
        ("compute_dtype", int),
        ("max_groups", "many"),
        ("on_error", True),
        ("save_seconds", "60"),
        ("save_calls", 1.5),
        ("devices", "cpu"),
        ("devices", [0]),
        ("progress", True),
        ("overwrite", "yes"),
    ],
)
def test_arguments_of_a_wrong_type_are_named(name, value):
    given = {"trial": heavy, "space": MOMENTA, "trials": 2, **GIVEN, "space" if name == "spec" else name: value}
    with pytest.raises((TypeError, ValueError)) as raised:
        jo.sweep(**given)
    assert name in str(raised.value)


def test_one_device_is_no_list_of_devices():
    for device in (0, jax.local_devices()[0]):
        with pytest.raises(TypeError, match="sweep: devices must be a list of devices"):
            jo.sweep(heavy, MOMENTA, 2, **GIVEN, devices=device)


def test_an_evaluation_that_fails_on_the_test_data_raises_before_the_first_step(tmp_path):
    def evaluate(params, data):
        if len(data) == 3:
            raise RuntimeError("no test")
        return {"score": jnp.sum(params)}

    def trial(config):
        data = np.ones((8, 2), np.float32)
        loss = lambda params, batch, key: jnp.sum((batch @ params - 1) ** 2)
        task = jo.Task(lambda key: jnp.zeros(2), loss, data, valid=data, test=data[:3], evaluate=evaluate)
        return task, jo.sgd(config["learning_rate"])

    arguments = dict(steps=4, eval_every=2, batch_size=4, metric="valid.score", mode="max", trials=2)
    with pytest.raises(RuntimeError, match="no test"):
        jo.sweep(trial, {"learning_rate": jo.log_uniform(0.01, 0.1)}, **arguments, directory=tmp_path / "run")
    assert not (tmp_path / "run").exists()
