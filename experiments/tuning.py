r"""A sweep of 256 AdamW configurations finds one that beats adamw(1e-3) on held-out digits, at equal steps.

Run      python -m experiments.tuning [--quick]       about 25 s on two CPU cores, compiling included
         jaxopt-lite sweep experiments.tuning --trials 256 --steps 400 --eval-every 25 --seeds 3 \
             --policy "successive_halving(4)" --metric valid.loss          the sweep alone
Writes   runs/tuning/{sweep.json, trials.csv, curves.npz, events.jsonl, sweep.png, judged.json}
Data     scikit-learn's digits, split 60/20/20: the sweep sees the validation images, the test images judge its winner
Result   test accuracy 0.977 ± 0.004 for the winner, 0.963 ± 0.005 for adamw(1e-3): means of 5 fresh seeds, 95 %

Successive halving trains all 256 for 25 steps, the best 64 for 100, the best 16 to the end: a sixth of all steps.
Winner and rival are then trained again with five seeds that the sweep has not seen, and judged by the test set.
"""

import sys

import numpy as np

import jaxopt_lite as jo
from experiments import digits, record
from jaxopt_lite.log.records import write_json

TRIALS, STEPS, BATCH_SIZE, EVAL_EVERY, SEEDS, FRESH_SEEDS = 256, 400, 128, 25, 3, 5
SPACE = {
    "learning_rate": jo.log_uniform(1e-4, 1e-1),
    "b1": jo.one_minus_log_uniform(0.5, 0.99),
    "b2": jo.one_minus_log_uniform(0.9, 0.9999),
    "weight_decay": jo.log_uniform(1e-5, 1.0),
}
RIVAL = "adamw(1e-3)"

trial = digits.trial


def judge(optimizer, seeds=FRESH_SEEDS, first=1000):
    """Test accuracy after the same number of steps, with seeds that no sweep has seen: float [seeds]."""
    result = jo.fit(digits.task(), optimizer, STEPS, BATCH_SIZE, seed=first, seeds=seeds, eval_every=STEPS)
    return np.asarray(result.metrics["test.accuracy"], np.float64)


def main(quick=False):
    """Sweep, judge the winner, and check the claim."""
    directory = record.folder("tuning", quick)
    result = jo.sweep(
        trial,
        SPACE,
        trials=TRIALS // 4 if quick else TRIALS,
        steps=STEPS,
        batch_size=BATCH_SIZE,
        eval_every=EVAL_EVERY,
        seeds=1 if quick else SEEDS,
        policy=jo.successive_halving(4),
        metric="valid.loss",
        directory=directory,
        progress="auto",
        overwrite=True,
    )
    print(result.summary())
    winner = digits.adamw(
        {name: float(str(value)) for name, value in result.best.config.items()}
    )  # 0.1, not 0.10000000149
    judged = {repr(rule): judge(rule) for rule in (winner, jo.parse(RIVAL))}
    print(f"\ntest accuracy after {STEPS} steps, mean of {FRESH_SEEDS} fresh seeds with its 95 % interval:")
    for name, values in judged.items():
        mean, half = record.interval(values)
        print(f"  {mean:.4f} ± {half:.4f}  {name}")
    write_json(directory / "judged.json", judged)
    print(f"the picture: {directory / 'sweep.png'}")
    ours, theirs = judged.values()
    assert ours.mean() > theirs.mean(), judged


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
