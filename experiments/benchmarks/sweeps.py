"""A sweep is as fast as a hand-written `jit(vmap(scan))`, and 20 times faster than a program for each config.

Run      python -m experiments.benchmarks.sweeps [--quick] [CASE ...]      about 12 minutes on two CPU cores
Writes   experiments/benchmarks/results/sweeps-BACKEND.json                (sweeps-BACKEND-quick.json with --quick)

All contenders train networks of `experiments.digits` by AdamW in float32, from the same parameters, on the same batches
in the same order, for the same number of steps and of evaluations of the valid data; learning rate and weight decay
differ from trial to trial. That all measure the same is checked first. The contenders:

    sweep              `jo.sweep` from beginning to end: tracing, compiling, asking, running, ranking
    engine             what `jo.sweep` drives, with its programs compiled: sampler, policy, cohorts, pool and ledger
    by hand            `jit(vmap(scan))`, called for as many trials at once as the engine
    serial loop        one compiled program of one run, the numbers its arguments, called for one trial after the other
    program each       one jitted Optax run for each trial, its numbers closed over: traced and compiled for each
    Optuna             a study that asks, calls the compiled program of the serial loop, and tells; compiled before
    hyperoptax         its random search, which maps the same run over as many trials as the engine; compiled before

Optuna and hyperoptax are left out where they are not installed.

The cases:

    engine      the engine against a hand-written program of the same width
    compile     64 trials of 500 steps, tracing and compiling counted on both sides, each turn in a new process
    width       the engine against the serial loop, by width (the usual one is the engine's own choice), for a small
                and for a larger network
    peers       the engine beside Optuna and hyperoptax
    halving     successive halving against the full sweep: what the winners are worth, on fresh seeds and test data
    throughput  on an accelerator: 1,024 trials against one
"""

import argparse
import collections
import concurrent.futures
import dataclasses
import functools
import importlib.util
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxopt_lite as jo
from experiments import digits
from experiments.benchmarks import timing
from jaxopt_lite.sweeps.engine import Engine
from jaxopt_lite.sweeps.groups import Groups
from jaxopt_lite.sweeps.program import SweepPlan

SPACE = jo.space({"learning_rate": jo.log_uniform(1e-4, 1e-1), "weight_decay": jo.log_uniform(1e-5, 1.0)})
SEED, WIDTH, METRIC = 0, 16, "valid.accuracy"
FIRST = 2**32 - 1  # what `fit` and `sweep` fold into a run's key to make its first parameters
WIDTHS = (1, 2, 4, 8, 16, 32, 64)
ROUNDS = 5
COLUMNS = {"case": "<70s", "contender": "<16s", "trials_s": ">10,.1f", "ratio": ">7.2f", "target": "<30s"}


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is trained, and how long."""

    hidden: int
    batch_size: int
    trials: int = 64
    steps: int = 500
    eval_every: int = 100

    def __str__(self) -> str:
        return f"{self.trials} trials of {self.steps} steps, {self.hidden} units, batches of {self.batch_size}"

    def trial(self, config):
        """The task of the sweep. No contender evaluates test data."""
        task = dataclasses.replace(digits.task(self.hidden), test=None)
        return task, jo.adamw(config["learning_rate"], weight_decay=config["weight_decay"])


SMALL, LARGE = Setting(hidden=16, batch_size=32, trials=256), Setting(hidden=128, batch_size=128)


# What the peers run.


def train(hidden, config, key, order, data, valid):
    """One run over an order [points, eval_every, batch]; curves [points] by name."""
    params = digits.init(key, hidden)
    optimizer = optax.adamw(config["learning_rate"], weight_decay=config["weight_decay"])

    def step(carry, rows):
        params, state = carry
        loss, grads = jax.value_and_grad(digits.loss)(params, jax.tree.map(lambda x: x[rows], data), None)
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), loss

    def point(carry, rows):
        carry, losses = jax.lax.scan(step, carry, rows)
        scores = digits.evaluate(carry[0], valid)
        return carry, {"train.loss": losses.mean(), **{f"valid.{name}": score for name, score in scores.items()}}

    return jax.lax.scan(point, (params, optimizer.init(params)), order)[1]


@functools.partial(jax.jit, static_argnums=0)
def one(hidden, *arguments):
    """One run."""
    return train(hidden, *arguments)


@functools.partial(jax.jit, static_argnums=0)
def side_by_side(hidden, *arguments):
    """Runs for configs whose numbers are arrays [width]; they share the key and the batches."""
    return jax.vmap(functools.partial(train, hidden), in_axes=(0, None, None, None, None))(*arguments)


@functools.cache
def given(setting: Setting) -> tuple:
    """What all runs of a setting are given: the key of the first parameters, the order of batches, train, valid."""
    task = digits.task(setting.hidden)
    key = jax.random.key(SEED)
    order = jo.batch_order(key, task.rows, setting.batch_size, 0, setting.steps)
    order = jnp.asarray(order.reshape(-1, setting.eval_every, setting.batch_size))
    return jax.random.fold_in(key, FIRST), order, *jax.device_put((task.train, task.valid))


def table(setting: Setting) -> np.ndarray:
    """The trials' rows, as `jo.sweep` draws them."""
    return SPACE.from_unit(jo.sobol().ask(SPACE, SEED, 0, setting.trials))


def configs(setting: Setting) -> dict[str, np.ndarray]:
    """Columns of the trials' numbers, float32 [trials]."""
    return SPACE.columns(table(setting))


def rows_of(setting: Setting) -> list[dict]:
    """The trials' configs."""
    return SPACE.configs(table(setting))


def by_hand(setting: Setting, width: int = WIDTH) -> dict[str, np.ndarray]:
    """All trials, `width` at a time; curves [trials, points]."""
    columns, arguments = configs(setting), given(setting)
    waiting = []
    for i in range(0, setting.trials, width):
        waiting.append(
            side_by_side(setting.hidden, {name: x[i : i + width] for name, x in columns.items()}, *arguments)
        )
    parts = jax.device_get(waiting)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def serial_loop(setting: Setting) -> dict[str, np.ndarray]:
    """One trial after the other."""
    return stacked([jax.device_get(one(setting.hidden, config, *given(setting))) for config in rows_of(setting)])


def program_each(setting: Setting) -> dict[str, np.ndarray]:
    """A program of its own for each trial, as one writes it without thinking of sweeps."""
    found = []
    for config in rows_of(setting):
        numbers = {name: float(value) for name, value in config.items()}
        found.append(jax.device_get(jax.jit(functools.partial(train, setting.hidden, numbers))(*given(setting))))
    return stacked(found)


def stacked(parts: list[dict]) -> dict[str, np.ndarray]:
    """Curves of one run after the other as curves [trials, points]."""
    return {name: np.stack([part[name] for part in parts]) for name in parts[0]}


def optuna_study(setting: Setting, sampler: str) -> None:
    """A study as its tutorial has it, around the compiled program."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    make = {"random": optuna.samplers.RandomSampler, "tpe": optuna.samplers.TPESampler}[sampler]
    study = optuna.create_study(direction="maximize", sampler=make(seed=SEED))
    for _ in range(setting.trials):
        asked = study.ask()
        config = {
            "learning_rate": jnp.float32(asked.suggest_float("learning_rate", 1e-4, 1e-1, log=True)),
            "weight_decay": jnp.float32(asked.suggest_float("weight_decay", 1e-5, 1.0, log=True)),
        }
        study.tell(asked, float(one(setting.hidden, config, *given(setting))[METRIC][-1]))


def hyperoptax_search(setting: Setting, width: int = WIDTH) -> Callable[[], object]:
    """Its random search; `width` configs are drawn and evaluated together. It keeps the last score alone."""
    import hyperoptax

    space = {"learning_rate": hyperoptax.LogSpace(1e-4, 1e-1), "weight_decay": hyperoptax.LogSpace(1e-5, 1.0)}
    state, search = hyperoptax.RandomSearch.init(space, n_parallel=width)
    arguments = given(setting)

    @jax.jit
    def score(key, config):
        return train(setting.hidden, config, *arguments)[METRIC][-1]

    def turn():
        found = search.optimize(state, jax.random.key(SEED), score, n_iterations=setting.trials // width)
        return jax.block_until_ready(found[1][1])

    return turn


# The sweep.


def engine(setting: Setting, width: int | None = WIDTH) -> Callable[[], jo.Ledger]:
    """A turn extends one sweep by more trials. Everything is traced and compiled before."""
    plan = SweepPlan(setting.steps, setting.batch_size, setting.eval_every, metric=METRIC, seed=SEED)
    ledger = jo.Ledger.empty(SPACE, plan)
    sweep = Engine(Groups(setting.trial, ledger, plan, jax.local_devices(), width), jo.sobol(), jo.run_all(), 0)

    def turn():
        sweep.trials += setting.trials
        collections.deque(sweep.run(), maxlen=0)
        return ledger

    turn()
    return turn


def sweep(setting: Setting, **changes) -> jo.SweepResult:
    """From beginning to end."""
    arguments = dict(
        steps=setting.steps, batch_size=setting.batch_size, eval_every=setting.eval_every, metric=METRIC, seed=SEED
    )
    return jo.sweep(setting.trial, SPACE, **{"trials": setting.trials, **arguments, **changes})


# The cases. Each gives the rows of its table.


def check(setting: Setting) -> None:
    """All must measure the same, as long as rounding has had no time to grow."""
    short = dataclasses.replace(setting, trials=4, steps=20, eval_every=10)
    expected = by_hand(short)
    for name, curves in (
        ("the serial loop", serial_loop(short)),
        ("a program for each", program_each(short)),
        ("the engine", {name: curve[: short.trials, 0] for name, curve in engine(short)().curves.items()}),
    ):
        assert curves.keys() == expected.keys(), name
        for curve in curves:
            atol = 0.01 if curve.endswith("accuracy") else 1e-3
            np.testing.assert_allclose(curves[curve], expected[curve], atol=atol, err_msg=f"{curve} of {name}")


def rows(case: str, trials: int, seconds: timing.Seconds, peer: str) -> list[dict]:
    """Rows of a table, from times."""
    return [
        {
            "case": case,
            "contender": name,
            "trials_s": trials / statistics.median(times),
            "ratio": timing.ratio(seconds, name, peer),
        }
        for name, times in seconds.items()
    ]


def at_least(value: float, target: float, what: str) -> str:
    """The verdict on a speed-up."""
    reached = "reached" if value >= target else "within noise" if value >= target / (1 + timing.NOISE) else "MISSED"
    return f"{what} {value:.3g} x as fast, of {target:g}: {reached}"


def engine_case(rounds: int) -> list[dict]:
    """The engine costs little more than what it runs."""
    found = []
    for setting in (SMALL, LARGE):
        check(setting)
        turns = {"engine": engine(setting), "by hand": functools.partial(by_hand, setting)}
        seconds = timing.alternate(turns, rounds, f"engine, {setting}")
        found += rows(f"width {WIDTH}: {setting}", setting.trials, seconds, "by hand")
        found[-2]["target"] = timing.verdict(found[-2]["ratio"], 1.10)
    return found


def compile_case(rounds: int) -> list[dict]:
    """One program, against a program for each config."""
    setting = dataclasses.replace(SMALL, trials=64)  # a larger network spends most of the time on its steps
    names = ("sweep", "program each")
    seconds: timing.Seconds = {name: [] for name in names}
    for i in range(rounds):
        for name in names if i % 2 else reversed(names):
            timing.progress(f"compile, {setting}: {name}, round {i} of {rounds}")
            seconds[name].append(cold(name, setting))
    timing.progress("")
    found = rows(f"with compiling: {setting}", setting.trials, seconds, "sweep")
    found[0]["target"] = at_least(found[1]["ratio"], 20, "it is")
    return found


def cold(name: str, setting: Setting) -> float:
    """The seconds of one turn, in a process of its own that has compiled nothing before."""
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # two processes share an accelerator's memory
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(cold_turn, name, setting).result()


def cold_turn(name: str, setting: Setting) -> float:
    """What that process does. The data are there before."""
    jax.config.update("jax_enable_compilation_cache", False)
    given(setting)
    turn = {"sweep": sweep, "program each": program_each}[name]
    began = time.perf_counter()
    turn(setting)
    return time.perf_counter() - began


def width_case(rounds: int) -> list[dict]:
    """What a cohort gains over one trial after the other."""
    found = []
    for setting, target in (
        (dataclasses.replace(SMALL, trials=64), 1.5),
        (dataclasses.replace(LARGE, steps=200), 0.95),
    ):
        turns: dict[str, Callable] = {"serial loop": functools.partial(serial_loop, setting)}
        turns |= {f"engine, {width}": engine(setting, width) for width in WIDTHS}
        turns["engine, usual"] = engine(setting, None)
        seconds = timing.alternate(turns, rounds, f"width, {setting}")
        found += rows(f"by width: {setting}", setting.trials, seconds, "serial loop")
        found[-1]["target"] = at_least(1 / found[-1]["ratio"], target, "it is")
    return found


def peers_case(rounds: int) -> list[dict]:
    """Other packages."""
    found = []
    for setting in (SMALL, LARGE):
        turns: dict[str, Callable] = {"engine": engine(setting)}
        if importlib.util.find_spec("optuna"):
            for sampler in ("random", "tpe"):
                turns[f"Optuna, {sampler}"] = functools.partial(optuna_study, setting, sampler)
        if importlib.util.find_spec("hyperoptax"):
            turns["hyperoptax"] = hyperoptax_search(setting)
        seconds = timing.alternate(turns, rounds, f"peers, {setting}")
        found += rows(f"beside others: {setting}", setting.trials, seconds, "engine")
    return found


HALVING = Setting(hidden=128, batch_size=128, trials=256, steps=800, eval_every=50)
POLICY = jo.successive_halving(factor=4, min_steps=100)
FRESH_SEED, FRESH_SEEDS = 1000, 5


def halving_case(sweeps: int) -> list[dict]:
    """Halving finds winners as good as the full sweep's, for a part of the steps."""
    policies = {"full sweep": jo.run_all(), "halving": POLICY}
    taken = {name: 0 for name in policies}
    scores = {name: [] for name in policies}
    seconds = {name: [] for name in policies}
    for seed in range(sweeps):
        for name, policy in policies.items():
            timing.progress(f"halving: sweep {seed} of {sweeps}, {name}")
            began = time.perf_counter()
            result = sweep(HALVING, policy=policy, seed=seed)
            seconds[name].append(time.perf_counter() - began)
            taken[name] += sum(trial.steps for trial in result.trials)
            scores[name].append(worth(result.best.config))
    timing.progress("")
    found = rows(f"halving: {HALVING}", HALVING.trials, seconds, "full sweep")
    for row, name in zip(found, policies, strict=True):
        row["steps"], row["test_accuracy"] = taken[name] / taken["full sweep"], statistics.mean(scores[name])
        row["sweeps"] = scores[name]
        row["target"] = f"test accuracy {row['test_accuracy']:.2%}, {row['steps']:.0%} of the steps"
    apart = 100 * (found[0]["test_accuracy"] - found[1]["test_accuracy"])
    good = apart <= 0.5 and found[1]["steps"] <= 0.3
    found[1]["target"] += f"; {apart:+.2f} points lost, of 0.5 and 30%: {'reached' if good else 'MISSED'}"
    return found


def worth(config: dict) -> float:
    """The test accuracy of a config, mean of fresh seeds."""
    task, optimizer = digits.task(HALVING.hidden), HALVING.trial(config)[1]
    steps, batch_size = HALVING.steps, HALVING.batch_size
    result = jo.fit(task, optimizer, steps, batch_size, seed=FRESH_SEED, seeds=FRESH_SEEDS, eval_every=steps)
    return float(np.mean(result.metrics["test.accuracy"]))


def throughput_case(rounds: int, trials: int = 1024) -> list[dict]:
    """An accelerator that one small network leaves idle."""
    found = []
    for setting in (SMALL, LARGE):
        many, single = dataclasses.replace(setting, trials=trials), dataclasses.replace(setting, trials=1)
        turns = {"one trial": engine(single, 1), f"{trials:,} trials": engine(many, trials)}
        seconds = timing.alternate(turns, rounds, f"throughput, {setting}")
        seconds[f"{trials:,} trials"] = [s / trials for s in seconds[f"{trials:,} trials"]]
        found += rows(f"throughput: {many}", 1, seconds, "one trial")
        found[-1]["target"] = f"{1 / found[-1]['ratio']:,.0f} x the trials of one alone"
    return found


CASES: dict[str, tuple[Callable[[int], list[dict]], int, int]] = {  # rounds, and with --quick
    "engine": (engine_case, ROUNDS, 3),
    "compile": (compile_case, 3, 1),
    "width": (width_case, ROUNDS, 3),
    "peers": (peers_case, ROUNDS, 2),
    "halving": (halving_case, 5, 1),
    "throughput": (throughput_case, ROUNDS, 3),
}


def main() -> None:
    """Run the cases, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all of them by default")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    arguments = parser.parse_args()
    accelerated = jax.default_backend() != "cpu"
    chosen = arguments.cases or [name for name in CASES if accelerated or name != "throughput"]
    began = time.perf_counter()
    print(", ".join(f"{key} {value}" for key, value in timing.machine().items()), flush=True)
    timing.header(COLUMNS)
    found = []
    for name in chosen:
        case, rounds, few = CASES[name]
        found += timing.show(case(few if arguments.quick else rounds), COLUMNS)
        if not arguments.cases:  # after each, so that an interrupted run leaves what it measured
            path = timing.write("sweeps", arguments.quick, {"rows": found})
            print(f"wrote {path} after {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
