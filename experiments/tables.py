"""Tables of the documentation, each a function of `read(NAME)`, which gives what an experiment found."""

import json
import statistics
from collections.abc import Callable
from pathlib import Path

from experiments import record

__all__ = ["choosing", "minima", "overfitting", "recipes", "schedules", "search", "speed"]

BENCHMARKS = Path(__file__).parent / "benchmarks" / "results"
Read = Callable[[str], dict]


def within(mean: float, half: float, digits: int = 2, unit: float = 100.0) -> str:
    """A mean with half its interval, in percent unless another unit is given."""
    return f"{unit * mean:.{digits}f} ± {unit * half:.{digits}f}"


PER_DECADE = 4  # learning rates tried


def recipes(read: Read) -> str:
    """Every recipe at its tuned rate, on both data sets, in the order of MNIST; and what rate and recipe are worth."""
    found = read("recipes")
    rows = []
    for name, large in found["mnist"].items():
        cells = [name]
        for row in (found["digits"][name], large):
            clipped = good(row)[0] or good(row)[-1]
            edge = "≥ " if row["rate"] in (row["rates"][0], row["rates"][-1]) else ""
            cells += [within(row["mean"], row["half"]), f"{edge}{row['rate']:.2g}"]
            cells.append(f"{'≥ ' if clipped else ''}{row['good_decades']:.2f}")
        rows.append(cells)
    heads = [f"{data}: {what}" for data in ("digits", "MNIST") for what in ("test accuracy, %", "rate", "good decades")]
    sentences = [worth(name, found[key]) for name, key in (("the digits", "digits"), ("MNIST", "mnist"))]
    return record.table(["recipe", *heads], rows) + "\n" + "\n".join(sentences) + "\n"


def good(row: dict) -> list[bool]:
    """Which rates end within a point of the best."""
    accuracy = [x if x is not None else 0.0 for x in row["valid_accuracy"]]
    return [x >= max(accuracy) - 0.01 for x in accuracy]


def worth(name: str, rows: dict) -> str:
    """In words: how many recipes are near the best, and what a rate costs that is ten times off."""
    means = [row["mean"] for row in rows.values()]
    near = sum(mean >= max(means) - 0.01 for mean in means)
    costs: dict[int, list[float]] = {-PER_DECADE: [], PER_DECADE: []}
    for row in rows.values():
        accuracy = [x if x is not None else 0.1 for x in row["valid_accuracy"]]  # diverged: as by chance
        best = accuracy.index(max(accuracy))
        for step, cost in costs.items():
            if 0 <= best + step < len(accuracy):
                cost.append(100 * (accuracy[best] - accuracy[best + step]))
    low, high = (statistics.median(costs[step]) for step in costs)
    return (
        f"On {name} {near} of {len(means)} recipes end within a point of the best. A rate ten times smaller than the "
        f"best costs {low:.1f} points of validation accuracy, one ten times larger {high:.1f}: medians over recipes."
    )


SPEED = [  # label; benchmark, case and contender; in whose time
    (
        "clip and AdamW, 25 million parameters",
        "updates",
        "clip + AdamW, 25M parameters, 1 leaf",
        "jaxopt_lite",
        "Optax",
    ),
    ("AdamW by `stack_leaves`, 400 leaves", "updates", "AdamW, 400 leaves of 32 x 32", "stack_leaves", "Optax"),
    ("`fit`, batches of 32", "training", "digits, batches of 32", "fit", "a hand-written scan"),
    ("`fit`, batches of 128", "training", "digits, batches of 128", "fit", "a hand-written scan"),
    ("sweep, 128 units", "sweeps", "width 16: 64 trials of 500 steps, 128 units", "engine", "`jit(vmap(scan))`"),
    (
        "sweep, 128 units",
        "sweeps",
        "by width: 64 trials of 200 steps, 128 units",
        "engine, usual",
        "one after the other",
    ),
    ("a program for each trial, compiling counted", "sweeps", "with compiling: 64", "program each", "a sweep"),
    ("Optuna's TPE, one compiled program", "sweeps", "beside others: 256", "Optuna, tpe", "a sweep"),
]


def speed(read: Read) -> str:
    """The rows of the benchmarks that a reader asks for first."""
    rows = []
    for what, benchmark, case, contender, peer in SPEED:
        found = json.loads((BENCHMARKS / f"{benchmark}-cpu.json").read_text(encoding="utf-8"))["rows"]
        row = next(row for row in found if row["case"].startswith(case) and row["contender"] == contender)
        rows.append([what, f"{row['ratio']:.2f}", peer])
    return record.table(["", "time", "in units of that of"], rows)


def schedules(read: Read) -> str:
    """Every schedule at its tuned peak: the test figures, and what they are above those of the constant rate."""
    result = read("schedules")
    found, settings, rows = result["found"], result["settings"], []
    for name in next(iter(found.values())):
        cells = [name]
        for of_rule in found.values():
            row = of_rule[name]
            loss, accuracy = row["test.loss"], row["test.accuracy"]
            cells += [f"{row['peak']:.2g}", within(accuracy["mean"], accuracy["half_width"])]
            cells += [within(loss["mean"], loss["half_width"], 3, 1.0), "" if name == "constant" else above(loss)]
        rows.append(cells)
    columns = ("peak", "test accuracy, %", "test loss", "above constant")
    heads = [f"{rule}: {what}" for rule in found for what in columns]
    words = (
        f"MNIST, {settings['steps']} steps, batches of {settings['batch_size']}, {settings['seeds']} fresh seeds.\n\n"
    )
    return words + record.table(["schedule", *heads], rows)


def above(row: dict, digits: int = 3, unit: float = 1.0) -> str:
    """A paired difference with half its interval; in bold where this excludes zero."""
    mean, half = unit * row["difference"], unit * row["difference_half_width"]
    text = f"{mean:+.{digits}f} ± {half:.{digits}f}"
    return f"**{text}**" if abs(mean) > half else text


def overfitting(read: Read) -> str:
    """Every remedy at its tuned strength: accuracies, the gap, and what the test loss is above that of none."""
    result = read("overfitting")
    settings, rows = result["settings"], []
    for name, row in result["found"].items():
        value = "" if row["value"] is None else f"{row['number']} = {row['value']:.3g}"
        kinds = ("train_accuracy", "test_accuracy", "accuracy_gap")
        cells = [within(row[kind]["mean"], row[kind]["half_width"]) for kind in kinds]
        loss = within(row["test_loss"]["mean"], row["test_loss"]["half_width"], 3, 1.0)
        rows.append([name, value, *cells, loss, "" if name == "none" else above(row["test_loss"])])
    heads = ["remedy", "strength", "train accuracy, %", "test accuracy, %", "gap, points", "test loss", "above none"]
    words = f"{settings['images']} training images, {settings['steps']} steps, {settings['seeds']} fresh seeds.\n\n"
    return words + record.table(heads, rows)


def minima(read: Read) -> str:
    """Where 40,000 starts end on two surfaces."""
    found = read("landscape")
    rows = []
    for name, row in found.items():
        if "rastrigin, median height of the ends" in row:
            other, height = (
                row["himmelblau, in another than gradient descent"],
                row["rastrigin, median height of the ends"],
            )
            rows.append([name, f"{100 * other:.0f} %", f"{height:.1f}"])
    heads = [
        "optimizer",
        "Himmelblau: in another minimum than gradient descent",
        "Rastrigin: median height of the ends",
    ]
    return record.table(heads, rows)


def choosing(read: Read) -> str:
    """Three searches of one budget, over the optimizer and its numbers: what their winners are worth on test data."""
    found = read("choosing")
    accuracy, rows = found["summary"]["test accuracy"], []
    for name, sweeps in found["searches"].items():
        gain, half = accuracy[f"{name} - adam(1e-3)"]
        winners = ", ".join(sweep["kind"] for sweep in sweeps)
        rows.append([name, within(*accuracy[name]), f"{100 * gain:+.2f} ± {100 * half:.2f}", winners])
    rows.append(["no search: adam(1e-3)", within(*accuracy["adam(1e-3)"]), "", ""])
    return record.table(["search", "test accuracy, %", "above adam(1e-3)", "the winners of five sweeps"], rows)


def search(read: Read) -> str:
    """How often each method of global search succeeded, on each problem; the best of a column in bold."""
    found = {name: row for name, row in read("global_search").items() if "methods" in row}
    rows = []
    for name in next(iter(found.values()))["methods"]:
        cells = [name]
        for row in found.values():
            share = row["methods"][name]["success"]
            low, high = row["methods"][name]["interval"]
            text = f"{100 * share:.0f} [{100 * low:.0f}, {100 * high:.0f}]"
            is_best = share == max(other["success"] for other in row["methods"].values())
            cells.append(f"**{text}**" if is_best else text)
        rows.append(cells)
    heads = [f"{title}, {row['budget']:,} evaluations" for title, row in found.items()]
    return record.table(["method", *heads], rows)
