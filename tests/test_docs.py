"""Every Python block of the README and of docs/ runs, links lead somewhere, and docstrings describe all arguments.

The blocks of one file run in order in one module of their own, in an empty directory. A block is left out only by a
comment on the line before it, which gives the reason: <!-- skip: reason -->.
"""

import inspect
import re
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import pytest

import jaxopt_lite as jo
from jaxopt_lite.core.recipe import argument_descriptions

ROOT = Path(__file__).resolve().parents[1]
PAGES = [page for page in [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))] if page.exists()]
LINKED = [*PAGES, *(page for name in ("CONTRIBUTING.md", "CHANGELOG.md") if (page := ROOT / name).exists())]

FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^(?P=indent)``` *$", re.M | re.S)
SKIP = re.compile(r"<!-- skip: (?P<reason>.+?) -->\s*\Z")
LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)|(?:src|href)=\"(?P<attribute>[^\"]+)\"")


@dataclass(frozen=True)
class Block:
    language: str
    code: str
    line: int  # of the first line of code, counted from 1
    skip: str | None


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page, without their indentation."""
    found = []
    for fence in FENCE.finditer(text):
        code = re.sub(f"^{fence['indent']}", "", fence["code"], flags=re.MULTILINE)
        skip = SKIP.search(text[: fence.start()])
        line = text.count("\n", 0, fence.start("code")) + 1
        found.append(Block(fence["language"], code, line, skip["reason"] if skip else None))
    return found


def dead_links(page: Path) -> list[str]:
    dead = []
    for link in LINK.finditer(FENCE.sub("", page.read_text(encoding="utf-8"))):
        target = (link["target"] or link["attribute"]).partition("#")[0]
        if target and not re.match(r"[a-z]+:", target) and not (page.parent / target).exists():
            dead.append(target)
    return dead


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


# One test for each, so that pytest's summary lists them with their reasons.
LEFT_OUT = [
    pytest.param(block.skip, id=f"{name_of(page)}:{block.line}")
    for page in PAGES
    for block in blocks(page.read_text(encoding="utf-8"))
    if block.language == "python" and block.skip
]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # A real module, so that what the blocks define can be pickled and printed like a user's own.
    module = types.ModuleType(f"blocks_of_{page.stem.lower()}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.language == "python" and not block.skip:
            # The empty lines before it make a traceback show the line of the page.
            exec(compile("\n" * (block.line - 1) + block.code, str(page), "exec"), module.__dict__)


if LEFT_OUT:

    @pytest.mark.parametrize("reason", LEFT_OUT)
    def test_blocks_left_out(reason):
        pytest.skip(reason)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_blocks_are_called_python(page):
    others = {"py", "py3", "python3", "pycon"}
    lines = [block.line for block in blocks(page.read_text(encoding="utf-8")) if block.language in others]
    assert not lines, f"{name_of(page)}, lines {lines}: write ```python, so that the block runs here"


@pytest.mark.parametrize("page", LINKED, ids=name_of)
def test_links_lead_somewhere(page):
    assert not dead_links(page), f"{name_of(page)} links to what is not there: {dead_links(page)}"


def test_every_public_name_is_on_the_api_page():
    page = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    homes = {getattr(jo, name).__module__ for name in jo.__all__ if hasattr(getattr(jo, name), "__qualname__")}
    missing = {home for home in homes if home.startswith("jaxopt_lite") and f"::: {home}\n" not in page}
    assert not missing, f"docs/api.md has no section for {', '.join(sorted(missing))}"


def test_how_blocks_are_found():
    text = "Text.\n\n```python\nx = 1\n```\n\n<!-- skip: needs a GPU -->\n```python\ny = 2\n```\n"
    text += "- item\n\n  ```bash\n  ls\n  ```\n"
    assert blocks(text) == [
        Block("python", "x = 1\n", 4, None),
        Block("python", "y = 2\n", 9, "needs a GPU"),
        Block("bash", "ls\n", 14, None),
    ]


def test_how_dead_links_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("[a](page.md#there) [b](gone.md) [c](https://example.org) [d](#e)\n```text\n[f](code.md)\n```\n")
    assert dead_links(page) == ["gone.md"]


IN_PROSE = {
    "jaxopt_lite.policy",
    "jaxopt_lite.sampler",
}  # their docstrings describe the decorated function in running text
FUNCTIONS = {
    f"{module.__name__}.{name}": function
    for module in (jo, jo.solvers, jo.search, jo.trackers)
    for name in module.__all__
    if inspect.isroutine(function := getattr(module, name)) and getattr(function, "__module__", "") != "typing"
}


@pytest.mark.parametrize("name", sorted(FUNCTIONS.keys() - IN_PROSE))
def test_every_argument_of_a_public_function_is_described(name):
    missing = set(inspect.signature(FUNCTIONS[name]).parameters) - set(argument_descriptions(FUNCTIONS[name]))
    assert not missing, f"the docstring of {name} has no entry under Args for {', '.join(sorted(missing))}"


def test_a_recipe_describes_arguments_in_the_words_of_its_rules():
    described = argument_descriptions(jo.adamw)
    assert list(described) == list(inspect.signature(jo.adamw).parameters)
    assert described["b1"] == argument_descriptions(jo.scale_by_adam)["b1"]
    assert described["mask"] == argument_descriptions(jo.add_decayed_weights)["mask"] and "\n" in described["mask"]
    assert "plain gradient descent" in argument_descriptions(jo.sgd)["momentum"]  # its own comes before that of a rule
