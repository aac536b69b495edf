"""The layers of the package, and tests that its imports follow them.

Everything is read from the source, nothing is imported. The plan may name modules that do not exist yet; a module that
exists must be in the plan. The last tests break a small package on purpose, rule by rule.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "jaxopt_lite"

# A module imports only from layers above its own, and inside a folder only from files before it.
# A folder's own __init__ comes after its files. Where a folder has no files yet, declare them in order with the first.
PLAN = (
    {"tree": ()},
    {
        "core": (
            *("numbers", "arguments", "text", "parameters", "values"),  # the remembered call
            *("schedule", "checks", "transformation", "recipe", "vectors"),
            *("loss_scale", "method", "hyperparameters", "lifting"),
            *("execution", "compiler"),  # when costly computations run, and how programs are compiled
            *("layout", "carrying"),  # where the leaves of a state belong, and those of others
            *("programs", "traced"),  # functions known by what they compute
        )
    },
    {"schedules": ("shapes", "phases"), "losses": (), "problems": ("draws", "functions", "bbob")},
    {
        "transforms": (
            "routing",  # which leaf gets what; weight decay takes a mask
            *("momentum", "adaptive", "adam", "mixtures", "factored", "scaling", "clipping", "decay"),  # rules
            *("distance", "schedule_free", "feedback", "sharpness"),  # rates without a schedule
            *("guards", "wrappers", "stacking", "quantization", "rounding"),  # what is put around a rule
            *("matrices", "hidden", "eigenbases", "shampoo", "kron"),  # rules that act on matrices
        )
    },
    {
        "optimizers": ("first_order", "mixtures", "automatic", "matrices"),
        "solvers": (
            *(
                "krylov",
                "box",
                "endings",
                "linesearch",
                "descent",
                "quasi_newton",
                "conjugate",
                "accelerated",
                "proximal_gradient",
                "bounded",
            ),
            *("trust_region", "newton_cg", "dogleg", "nelder_mead"),
            *(
                "robust",
                "linear_model",
                "product_model",
                "bounded_step",
                "squares",
                "levenberg_marquardt",
                "gauss_newton",
            ),
            *("hybrid", "equations", "bracketing", "fixed_point"),
            *("augmented_lagrangian", "quadratic_programs"),  # constraints
        ),
    },
    {
        "search": (
            *("population", "random_search"),
            *("distribution", "cma_es", "differential_evolution"),
            *("lanes", "points", "multistart", "basin_hopping", "annealing", "genetic"),
        )
    },  # its hybrids hold solvers
    {
        "solve": ("problem", "solution", "implicit", "batch", "custom"),
        "train": (
            *("task", "calls", "state", "remat", "plan", "pieces", "step"),
            *("data", "pipeline", "stacks", "prefetch", "source"),  # batches
            *("point", "result", "loop"),
        ),
        "sharding": (),
    },
    {
        "sweeps": (
            *("configs", "distributions", "space"),  # what is searched
            *("samplers", "adaptive"),  # which points
            *("ledger", "policies", "population"),  # which trials are promoted
            *("program", "pool", "groups", "engine"),  # running them
        )
    },
    {
        "checkpoint": ("folder", "packing", "unpacking", "store", "saving"),
        "log": ("records", "tables", "trackers", "relay", "tensorboard", "progress", "scoreboard"),
    },
    {
        "report": ("analysis", "scales", "curves", "panels", "overview", "exports", "result"),
        "trackers": ("console", "csv", "tensorboard", "mlflow", "wandb"),
    },
    {
        "run": (
            "signals",
            "arguments",
            "constraints",
            "problems",
            "solving",
            "minimizing",
            "fitting",
            "equations",
            "quadratic",
            "parts",
            "batches",
            "tracking",
            "contents",
            "folder",
            "saves",
            "profiling",
            "run_folder",
            "training",
            "checkpoints",
            "sweep_folder",
            "sweeping",
        )
    },
    {"__init__": ()},  # the face of the package, `import jaxopt_lite as jo`; the command line alone is built on it
    {"cli": ("app", "names", "sweeps", "runs", "main")},
)
LAST_PURE_LAYER = 7
NAMESPACES = (
    "tree",
    "solvers",
    "search",
    "trackers",
)  # reached by their own name, as tree.… or jo.solvers.…; all others are flat

# What touches files, the clock, the terminal or other processes.
WORLDLY_MODULES = {
    *("os", "sys", "io", "time", "datetime", "pathlib", "shutil", "tempfile", "glob", "signal", "threading"),
    *("subprocess", "multiprocessing", "concurrent", "asyncio", "socket", "logging", "importlib", "random"),
    *("rich", "typer", "matplotlib", "plotly", "pandas", "orbax", "optuna", "tensorboard", "mlflow", "wandb"),
}
WORLDLY_CALLS = {"print", "open", "input"}
ALLOWED = {
    "core.text": {"importlib"},  # parse looks names up in the package, which stands below it, when it is called
    "sweeps.adaptive": {"optuna"},  # its samplers, imported when one is asked
    "train.calls": {"threading"},  # it waits for the device in pauses, so that Python can handle signals
    "train.prefetch": {"threading"},  # it takes batches from the user's pipeline while the device works
    "core.transformation": {"threading"},  # whether a value is the outermost one is known for each thread
}

MAX_LINES = 400
ONE_PATH = "one import path for each name"
BANNED_NAMES = {"utils", "util", "base", "_src", "helpers", "misc", "common"}


class Modules:
    """The modules of a package by dotted name, with their syntax trees. A folder's __init__ has the folder's name."""

    def __init__(self, package: Path):
        self.package = package
        self.paths, self.trees = {}, {}
        for path in sorted(package.rglob("*.py")):
            parts = path.relative_to(package).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
            self.paths[name] = path
            self.trees[name] = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))

    def where(self, module: str, node: ast.AST | None = None) -> str:
        path = self.paths[module].relative_to(self.package.parent)
        return f"{path}:{node.lineno}" if node is not None else str(path)

    def position(self, module: str) -> tuple[int, int] | None:
        """(layer, place in its folder), or None when the plan does not have the module."""
        folder, _, file = module.partition(".")
        for layer, folders in enumerate(PLAN):
            if folder in folders:
                if not file:
                    return layer, len(folders[folder])
                return (layer, folders[folder].index(file)) if file in folders[folder] else None
        return None

    def imports(self, module: str) -> Iterator[tuple[ast.stmt, str, str | None]]:
        """(statement, module of the package, name taken from it), wherever the statement stands in the file."""
        root = self.package.name
        is_folder = self.paths[module].name == "__init__.py"
        home = [root] if module == "__init__" else [root, *module.split(".")]
        for node in ast.walk(self.trees[module]):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.split(".")[0] == root:
                        yield node, alias.name.partition(".")[2] or "__init__", None
            elif isinstance(node, ast.ImportFrom):
                source = node.module.split(".") if node.module else []
                if node.level:
                    here = home if is_folder else home[:-1]
                    source = here[: len(here) - node.level + 1] + source
                if source[:1] == [root]:
                    for alias in node.names:
                        inner = ".".join([*source[1:], alias.name])
                        if inner in self.paths:
                            yield node, inner, None
                        else:
                            yield node, ".".join(source[1:]) or "__init__", alias.name

    def exports(self, module: str) -> list[str] | None:
        """The literal `__all__` of a module, or None when it has none."""
        for node in self.trees[module].body:
            if isinstance(node, ast.Assign) and [ast.unparse(t) for t in node.targets] == ["__all__"]:
                try:
                    return list(ast.literal_eval(node.value))
                except ValueError:
                    return None
        return None

    def bound(self, module: str) -> set[str]:
        """The names that a module binds at its top level."""
        names = set()
        for node in self.trees[module].body:
            for inner in ast.walk(node) if not isinstance(node, ast.FunctionDef | ast.ClassDef) else [node]:
                if isinstance(inner, ast.FunctionDef | ast.ClassDef):
                    names.add(inner.name)
                elif isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                    names.add(inner.id)
                elif isinstance(inner, ast.alias):
                    names.add((inner.asname or inner.name).split(".")[0])
        return names

    def is_face(self, module: str) -> bool:
        return self.paths[module].name == "__init__.py"


def undeclared(modules: Modules) -> list[str]:
    return [
        f"{modules.where(module)} is not in the plan: add it to PLAN in {Path(__file__).name}, where it belongs"
        for module in modules.paths
        if modules.position(module) is None
    ]


def forbidden_imports(modules: Modules) -> list[str]:
    faults = []
    for module in modules.paths:
        here = modules.position(module)
        if here is None:
            continue
        for node, target, name in modules.imports(module):
            there = modules.position(target)
            what = f"{modules.where(module, node)} imports {'the package itself' if target == '__init__' else target}"
            what += f" ({name})" if name else ""
            if there is None:
                faults.append(f"{what}, which is not in the plan")
            elif target == module:
                faults.append(f"{what}, which is this file")
            elif there[0] > here[0]:
                rule = f"{module} is in layer {here[0]} and may import only from layers above it"
                faults.append(f"{what}, layer {there[0]}, but {rule}")
            elif there[0] == here[0] and target.split(".")[0] != module.split(".")[0]:
                faults.append(f"{what}, its neighbour in layer {here[0]}: what both need belongs in a layer above")
            elif there[0] == here[0] and there[1] >= here[1]:
                order = ", ".join(PLAN[here[0]][module.split(".")[0]])
                faults.append(f"{what}, but inside a folder only files before it may be imported: {order}, __init__")
    return faults


def impurities(modules: Modules) -> list[str]:
    faults = []
    for module, tree in modules.trees.items():
        here = modules.position(module)
        if here is None or here[0] > LAST_PURE_LAYER:
            continue
        for node in ast.walk(tree):
            used = set()
            if isinstance(node, ast.Import):
                used = {alias.name.split(".")[0] for alias in node.names} & WORLDLY_MODULES
            elif isinstance(node, ast.ImportFrom) and not node.level:
                used = {node.module.split(".")[0]} & WORLDLY_MODULES
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                used = {node.func.id} & WORLDLY_CALLS
            for name in sorted(used - ALLOWED.get(module, set())):
                faults.append(
                    f"{modules.where(module, node)} uses {name}, but layers 0 to {LAST_PURE_LAYER} touch no files, "
                    "clock, terminal or process: return or yield the events, and let run act on them"
                )
    return faults


def oversized(modules: Modules) -> list[str]:
    faults = []
    for module, path in modules.paths.items():
        if module == "__init__":  # the face is a list of names
            continue
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > MAX_LINES:
            faults.append(f"{modules.where(module)} has {lines} lines, more than {MAX_LINES}: split it by subject")
    return faults


def meaningless_names(modules: Modules) -> list[str]:
    return [
        f"{modules.where(module)}: a module is named after what it is about, not {part!r}"
        for module in modules.paths
        for part in module.split(".")
        if part in BANNED_NAMES
    ]


def incomplete_exports(modules: Modules) -> list[str]:
    faults = []
    for module in modules.paths:
        exports, where = modules.exports(module), modules.where(module)
        taken = [(modules.where(module, node), target, name) for node, target, name in modules.imports(module) if name]
        if exports is None:
            # An __init__ that holds only a docstring exports nothing and needs no __all__.
            if not modules.is_face(module) or taken:
                faults.append(f"{where} has no __all__ that is a plain list of strings")
            continue
        faults += [f"{where}: __all__ names {e!r} twice" for e in set(exports) if exports.count(e) > 1]
        unbound = set(exports) - modules.bound(module)
        faults += [f"{where}: __all__ names {e!r}, which the module does not define" for e in sorted(unbound)]
        for place, target, name in taken:
            if not modules.is_face(module):
                if name in exports:
                    faults.append(f"{place} exports {name!r}, which has its home in {target}: {ONE_PATH}")
            elif name == "*":
                faults.append(f"{place} imports * from {target}: name what is taken")
            elif target in modules.paths and name not in (modules.exports(target) or []):
                faults.append(f"{place} takes {name!r} from {target}, whose __all__ does not have it")
    return faults


def names_with_two_homes(modules: Modules) -> list[str]:
    homes: dict[tuple[str, str], list[str]] = {}
    for module in modules.paths:
        folder = module.split(".")[0]
        for name in [] if modules.is_face(module) else modules.exports(module) or []:
            homes.setdefault((folder if folder in NAMESPACES else "", name), []).append(modules.where(module))
    return [
        f"{name!r} is exported by {' and '.join(places)}: {ONE_PATH}"
        for (_, name), places in homes.items()
        if len(places) > 1
    ]


RULES = (
    *(undeclared, forbidden_imports, impurities, oversized, meaningless_names),
    *(incomplete_exports, names_with_two_homes),
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_package(rule):
    faults = rule(Modules(PACKAGE))
    assert not faults, "\n" + "\n".join(faults)


SOUND = {
    "tree.py": "import jax\n__all__ = ['tree_add']\ndef tree_add(a, b): ...\n",
    "core/__init__.py": "from jaxopt_lite.core.values import value\n__all__ = ['value']\n",
    "core/numbers.py": "import numbers\n__all__ = ['Decay']\nDecay: object = float\n",
    "core/values.py": "from .numbers import Decay\nfrom .. import tree\n__all__ = ['value']\ndef value(x): ...\n",
    "schedules.py": "from jaxopt_lite.core import value\n__all__ = ['constant']\n@value\ndef constant(x): ...\n",
    "transforms/__init__.py": '"""The rules."""\n',
    "transforms/momentum.py": "from jaxopt_lite import core, tree\n__all__ = ['trace']\ndef trace(): ...\n",
    "log.py": "import time\n__all__ = ['log']\ndef log(): print(time.time())\n",
    "__init__.py": "from jaxopt_lite.transforms.momentum import trace\n__all__ = ['trace']\n",
    "cli.py": "import jaxopt_lite as jo\n__all__ = ['main']\ndef main(): ...\n",
}

# (the rule that finds it, the file that is added or replaced, its text, part of the message)
UNSOUND = [
    (undeclared, "transforms/utils.py", "__all__ = []\n", "not in the plan"),
    (undeclared, "extras.py", "__all__ = []\n", "not in the plan"),
    (forbidden_imports, "tree.py", "from jaxopt_lite.core import value\n", "tree is in layer 0"),
    (forbidden_imports, "tree.py", "def f():\n    import jaxopt_lite.log\n", "imports log, layer 8"),
    (forbidden_imports, "schedules.py", "from jaxopt_lite.losses import l2\n", "neighbour in layer 2"),
    (forbidden_imports, "core/numbers.py", "from . import values\n", "imported: numbers, arguments, text"),
    (forbidden_imports, "core/numbers.py", "from .values import value\n", "imports core.values (value)"),
    (forbidden_imports, "core/numbers.py", "from jaxopt_lite.core import value\n", "numbers, arguments, text"),
    (forbidden_imports, "transforms/momentum.py", "import jaxopt_lite as jo\n", "imports the package itself"),
    (forbidden_imports, "__init__.py", "from jaxopt_lite.cli import main\n", "imports cli (main), layer 12"),
    (impurities, "tree.py", "import os.path\n", "uses os"),
    (impurities, "sweeps/engine.py", "def f():\n    from rich.table import Table\n", "uses rich"),
    (impurities, "schedules.py", "def f(x):\n    print(x)\n", "uses print"),
    (oversized, "tree.py", "\n" * 401, "401 lines"),
    (meaningless_names, "core/utils.py", "", "'utils'"),
    (incomplete_exports, "tree.py", "def f(): ...\n", "no __all__"),
    (incomplete_exports, "tree.py", "__all__ = ['f']\n", "does not define"),
    (incomplete_exports, "tree.py", "__all__ = ['f', 'f']\ndef f(): ...\n", "twice"),
    (incomplete_exports, "log.py", "from .tree import tree_add\n__all__ = ['tree_add']\n", "has its home in tree"),
    (incomplete_exports, "__init__.py", "from jaxopt_lite.tree import hidden\n__all__ = ['hidden']\n", "whose __all__"),
    (incomplete_exports, "__init__.py", "from jaxopt_lite.tree import *\n__all__ = []\n", "imports *"),
    (names_with_two_homes, "schedules.py", "__all__ = ['trace']\ndef trace(): ...\n", "schedules.py and "),
]


def build(root: Path, files: dict[str, str]) -> Modules:
    for name, text in files.items():
        path = root / "jaxopt_lite" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return Modules(root / "jaxopt_lite")


def test_a_sound_package_has_no_faults(tmp_path):
    modules = build(tmp_path, SOUND)
    assert [fault for rule in RULES for fault in rule(modules)] == []


@pytest.mark.parametrize(("rule", "file", "text", "message"), UNSOUND)
def test_each_fault_is_found(tmp_path, rule, file, text, message):
    faults = rule(build(tmp_path, {**SOUND, file: text}))
    assert any(message in fault for fault in faults), faults
