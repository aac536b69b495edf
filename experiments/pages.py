"""Figures and pictures of the documentation come from the experiments' full runs, and none is typed by hand.

Run      python -m experiments.pages              at once; copies experiments/results into the documentation
         python -m experiments.pages --gather     first takes over the results and pictures that lie in runs/
Writes   docs/gallery.md; in docs/answers.md, docs/global_search.md and README.md the text between
         `<!-- figures: NAME -->` and `<!-- end -->`; with --gather experiments/results/NAME.json and docs/pictures/*
"""

import argparse
import ast
import json
import re
import shutil
from pathlib import Path
from typing import Any

from experiments import tables
from jaxopt_lite.log.records import write_json

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULTS, PICTURES = HERE / "results", ROOT / "docs" / "pictures"
FILLED = ("docs/answers.md", "docs/global_search.md", "README.md")
MARKED = re.compile(r"(<!-- figures: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
LONG = 64  # numbers in a list; longer ones are curves, which stay in runs/
GALLERY = """# Gallery

Every experiment states a claim, checks it, and leaves a picture.
Each is one file in `experiments/`; its docstring states how long it takes, and the result.
`make experiments` runs all of them in a reduced form.
"""
# The gallery: experiments with their pictures, as they lie in runs/NAME.
SHELF = {
    "First steps": {"linear_regression": ["paths.png"], "landscape": ["paths.png", "basins.png", "race.gif"]},
    "Classifiers": {
        "digits": ["curves.png"],
        "mnist": ["curves.png"],
        "recipes": ["recipes.png"],
        "schedules": ["schedules.png"],
        "overfitting": ["overfitting.png"],
        "interpret": ["saliency.png", "units.png"],
    },
    "Optimizers": {
        "char_transformer": ["curves.png"],
        "automatic": ["automatic.png"],
        "low_memory": ["memory.png"],
    },
    "Sweeps": {"tuning": ["sweep.png"], "population": ["population.png"], "choosing": ["choosing.png"]},
    "Solvers": {
        "implicit": ["implicit.png"],
        "second_order": ["races.png"],
        "curve_fitting": ["curves.png"],
        "global_search": ["paths.png", "success.png", "network.png"],
    },
    "Other models": {
        "regression_network": ["networks.png"],
        "classical_models": ["models.png"],
        "meta_learning": ["sinusoids.png"],
        "reinforcement": ["cartpole.png"],
        "generative": ["samples.png"],
    },
}


def gather(runs: Path = ROOT / "runs") -> None:
    """Take over from runs/ what the full runs left there."""
    RESULTS.mkdir(exist_ok=True)
    for name, pictures in experiments().items():
        left = [runs / name / file for file in ("result.json", "judged.json", "summary.json")]
        found = next((path for path in left if path.exists()), None)
        if found is None:
            print(f"{name}: no full run in {runs / name}")
            continue
        write_json(RESULTS / f"{name}.json", short(json.loads(found.read_text(encoding="utf-8"))))
        for picture in pictures:
            copy(runs / name / picture, PICTURES / f"{name}-{picture}")


def copy(source: Path, target: Path) -> None:
    """Copy a picture, a PNG with a palette of 256 colours: a third of the size, and as good to look at."""
    if source.suffix != ".png":
        shutil.copyfile(source, target)
        return
    from PIL import Image

    Image.open(source).convert("RGB").quantize(256).save(target, optimize=True)


def experiments() -> dict[str, list[str]]:
    """The pictures of every experiment on the shelf."""
    return {name: pictures for shelf in SHELF.values() for name, pictures in shelf.items()}


def short(figures: Any) -> Any:
    """The figures without curves."""
    if isinstance(figures, dict):
        return {key: short(value) for key, value in figures.items() if length(value) <= LONG}
    return figures


def length(value: Any) -> int:
    """How many numbers are in a list of lists."""
    return sum(map(length, value)) if isinstance(value, list) else 1


def read(name: str) -> dict:
    """What an experiment found."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def gallery() -> str:
    """The text of the gallery: of each experiment its claim, how to run it, and its pictures."""
    parts = [GALLERY]
    for title, shelf in SHELF.items():
        parts.append(f"## {title}\n")
        for name, pictures in shelf.items():
            docstring = ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text(encoding="utf-8"))) or ""
            claim = docstring.splitlines()[0]
            parts.append(f"### {name}\n\n{claim}\n\n`python -m experiments.{name}`\n")
            parts += [f"![{claim}](pictures/{name}-{picture})\n" for picture in pictures]
    return "\n".join(parts)


def filled(text: str) -> str:
    """A page with its marked figures as they are now."""
    return MARKED.sub(lambda found: f"{found[1]}{getattr(tables, found[2])(read)}{found[4]}", text)


def main() -> None:
    """Write the gallery and fill in the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gather", action="store_true", help="first take over what full runs left in runs/")
    if parser.parse_args().gather:
        gather()
    (ROOT / "docs" / "gallery.md").write_text(gallery(), encoding="utf-8")
    for name in FILLED:
        path = ROOT / name
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote docs/gallery.md, and the figures of {', '.join(FILLED)}")


if __name__ == "__main__":
    main()
