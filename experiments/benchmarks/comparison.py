"""The page of the comparison of optimizers, with its limits, made from its stored result.

Run      python -m experiments.benchmarks.comparison          a few seconds
Writes   docs/comparison.md and docs/pictures/profiles.png, from experiments/benchmarks/results/compare-cpu.json
"""

import json
from pathlib import Path

import numpy as np

from experiments import record
from experiments.benchmarks import verdicts

RESULT = Path(__file__).parent / "results" / "compare-cpu.json"
DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "comparison.md"
RATIOS = np.geomspace(1, 32, 200)

INTRODUCTION = """# Optimizers compared

Which optimizer comes to a given validation loss in the fewest steps, and in the least time, once each is tuned alike?
{optimizers} optimizers on {count} small workloads, {trials} configs each to tune with, the chosen ones judged on
{seeds} fresh seeds.
The protocol, written before anything was run, is the docstring of `experiments/benchmarks/compare.py`.
One command repeats it, another makes this page:

```bash
python -m experiments.benchmarks.compare
python -m experiments.benchmarks.comparison
```

The text of this page is derived from the figures by fixed rules.
*Sooner* on a workload means that the mean over seeds of log₂ (steps of one / steps of the other) is below zero and its
95 % interval (Student's t, seeds paired) excludes zero.
It is claimed that one optimizer is sooner than another if it is so on more than half of the workloads.
"""

CLAIMS = """On how many workloads the first is sooner, and on how many it is later.
Then how many times as fast it is: geometric mean over workloads, with its 95 % interval over workloads.
Where that includes 1, the claim is about most of the workloads, and not about their mean.
Then each workload's log₂ ratio with its 95 % interval over seeds, in bold where the first is sooner.
"""

UNSETTLED = """All pairs that are not in bold, in either direction.
On how many workloads the optimizer of the row is sooner than that of the column, and on how many it is later.
"""

LIMITS = """## What this does not show

- These workloads train in seconds.
  They do not show what happens in large models, long runs or other kinds of data.
- Learning rates are constant. A schedule may change the order.
- The target lies a twentieth of the way above the best of all tuned configs.
  A looser or a tighter target may be won by another.
- Steps are counted in fiftieths of the budget.
  Where a target is reached within a few of them, as on the digits, the figures are coarse.
- Where the target is not reached, the budget counts in its place, which favours the one that did not reach it.
- Tuning is one draw of {trials} configs with one seed: intervals cover the seeds of training, not those of tuning.
  Other ranges, or a smaller budget, may favour optimizers with fewer hyperparameters.
  The config that came to the target first there is chosen: where that was luck, few of the fresh seeds come to it.
- Intervals are not corrected for their number.
  Of {comparisons:,}, one in twenty would exclude zero if nothing differed.
- The loss is the validation data's, so memorising is punished, but test accuracy is not compared.
- Seconds are this machine's, for {seeds} seeds side by side; on small workloads they measure overhead too.
"""


def read() -> dict:
    """The stored result, what was not reached as infinity."""
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    for workload in result["workloads"].values():
        for row in workload["rows"].values():
            for key in ("steps", "seconds"):
                row[key] = np.array([np.inf if value is None else value for value in row[key]])
    return result


def taken(result: dict, key: str) -> dict[str, dict[str, np.ndarray]]:
    """Steps or seconds by optimizer and workload."""
    workloads = result["workloads"]
    optimizers = next(iter(workloads.values()))["rows"]
    return {name: {w: found["rows"][name][key] for w, found in workloads.items()} for name in optimizers}


def budgets(result: dict, key: str) -> dict[str, float]:
    """What counts where the target is not reached: the budget of steps, or the time of the slowest one's budget."""
    found = result["workloads"]
    if key == "steps":
        return {name: float(row["budget"]) for name, row in found.items()}
    slowest = {name: max(one["seconds_a_step"] for one in row["rows"].values()) for name, row in found.items()}
    return {name: row["budget"] * slowest[name] for name, row in found.items()}


def workloads_table(result: dict) -> str:
    """What was trained, and what was to be reached."""
    rows = []
    for name, found in result["workloads"].items():
        batch = "all" if found["batch_size"] is None else str(found["batch_size"])
        least = min(found["best"].values())
        first = [name, found["what"], f"{found['budget']:,}", batch]
        rows.append([*first, f"{found['start']:.3g}", f"{least:.3g}", f"{found['target']:.3g}"])
    return record.table(["workload", "what", "steps", "batch", "loss at the start", "least in tuning", "target"], rows)


def steps_table(result: dict) -> str:
    """The median over seeds of the steps to the target; how many seeds reached it, where not all did."""
    steps, seeds = taken(result, "steps"), result["seeds"]
    rows = []
    for workload in result["workloads"]:
        medians = {name: np.median(steps[name][workload]) for name in steps}
        cells = [workload]
        for name, median in medians.items():
            reached = np.isfinite(steps[name][workload]).sum()
            text = f"{median:,.0f}" if np.isfinite(median) else "–"
            text = f"**{text}**" if np.isfinite(median) and median == min(medians.values()) else text
            cells.append(text if reached == seeds else f"{text} ({reached})")
        rows.append(cells)
    return record.table(["workload", *steps], rows)


def claims(gaps: dict, result: dict) -> str:
    """The claims that are made, with their intervals."""
    rows = []
    for (one, other), row in gaps.items():
        sooner, later, is_claimed = verdicts.standing(row)
        if is_claimed:
            mean, half = record.interval([mean for mean, _ in row.values()])
            factor, low, high = (2**-x for x in (mean, mean + half, mean - half))
            each = (f"**{m:+.2f} ± {h:.2f}**" if m + h < 0 else f"{m:+.2f} ± {h:.2f}" for m, h in row.values())
            rows.append(
                [f"{one} before {other}", f"{sooner} : {later}", f"{factor:.1f} ({low:.1f} to {high:.1f})", *each]
            )
    return (
        record.table(["claim", "sooner : later", "factor", *result["workloads"]], rows)
        if rows
        else "No claim is made.\n"
    )


def matrix(gaps: dict) -> str:
    """On how many workloads the optimizer of the row is sooner than that of the column, and on how many later."""
    names = list(dict.fromkeys(one for one, _ in gaps))
    rows = []
    for one in names:
        cells = [one]
        for other in names:
            sooner, later, is_claimed = verdicts.standing(gaps[one, other]) if one != other else (0, 0, False)
            text = f"{sooner} : {later}" if one != other else ""
            cells.append(f"**{text}**" if is_claimed else text)
        rows.append(cells)
    return record.table(["", *names], rows)


def profile_table(result: dict) -> str:
    """The profiles at a few ratios, with their intervals, best first."""
    at = np.array([1.0, 2.0, 4.0])
    found = {key: verdicts.profiles(taken(result, key), at) for key in ("steps", "seconds")}
    order = sorted(found["steps"], key=lambda name: -found["steps"][name][0].sum())
    cell = lambda part: f"{part[0]:.2f} ({part[1]:.2f} to {part[2]:.2f})"
    rows = [[name, *(cell(found[key][name][:, i]) for key in found for i in range(len(at)))] for name in order]
    heads = [f"{key}, ≤ {ratio:g} ×" for key in ("steps", "time") for ratio in at]
    return record.table(["optimizer", *heads], rows)


def draw(result: dict, path: Path) -> None:
    """The profiles by steps and by time."""
    from matplotlib import colormaps

    figure = record.figure(13.5, 5)
    axes = figure.subplots(1, 2, sharey=True)
    colors, names = colormaps["tab10"], list(taken(result, "steps"))
    for one, key, title in zip(axes, ("steps", "seconds"), ("steps", "time"), strict=True):
        found = verdicts.profile(taken(result, key), RATIOS)
        for name in sorted(found, key=lambda name: -found[name].mean()):
            dashes, color = divmod(names.index(name), 10)
            one.plot(RATIOS, found[name], color=colors(color), linestyle=("-", "--")[dashes], label=name, linewidth=1.6)
        one.set_xscale("log", base=2)
        one.set(title=f"{title} to the target", xlabel="times what the best needed", ylim=(0, 1.02), xlim=(1, 32))
        one.set_xticks([1, 2, 4, 8, 16, 32], ["1", "2", "4", "8", "16", "32"])
        one.grid(alpha=0.25)
        one.spines[["top", "right"]].set_visible(False)
        one.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes[0].set_ylabel("share of runs (workload and seed)")
    figure.savefig(path, dpi=110)


def page(result: dict) -> str:
    """The text of the page."""
    some = next(iter(result["workloads"].values()))["rows"]
    count = len(result["workloads"])
    comparisons = len(some) * (len(some) - 1) // 2 * count
    machine = result["machine"]
    parts = [INTRODUCTION.format(optimizers=len(some), count=count, **result)]
    parts.append(f"## The workloads\n\n{workloads_table(result)}")
    words = "Median over seeds; in brackets how many reached the target, where not all did, and – where most did not. "
    words += "The fewest are in bold."
    parts.append(f"## Steps to the target\n\n{words}\n\n{steps_table(result)}")
    for key, title in (("steps", "steps"), ("seconds", "time")):
        gaps = verdicts.pairs(taken(result, key), budgets(result, key))
        parts.append(f"## Claims, by {title}\n\n{CLAIMS}\n{claims(gaps, result)}")
        parts.append(f"### What is not settled, by {title}\n\n{UNSETTLED}\n{matrix(gaps)}")
    words = (
        "The share of runs in which an optimizer needed at most so many times what the best one needed there (Dolan & "
        "Moré, 2002, arXiv:cs/0102001), with 95 % bootstrap intervals over workloads and seeds. In the order of the "
        "sum of the first three columns."
    )
    parts.append(f"## Performance profiles\n\n{words}\n\n![Performance profiles](pictures/profiles.png)\n")
    parts.append(profile_table(result))
    parts.append(LIMITS.format(**result, comparisons=comparisons))
    versions = ", ".join(f"{name} {machine[name]}" for name in ("jax", "optax") if name in machine)
    parts.append(f"Run on {machine['device']} ({machine['processor']}, {machine['cores']} cores), {versions}.\n")
    return "\n".join(parts)


def main() -> None:
    """Write the page and its picture."""
    result = read()
    draw(result, DOCS / "pictures" / "profiles.png")
    PAGE.write_text(page(result), encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
