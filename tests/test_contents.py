"""Hashes of the user's functions: what change of them is seen, and what is none."""

import json
import os
import subprocess
import sys
import types
from pathlib import Path

import jax
import numpy as np

import jaxopt_lite as jo
from jaxopt_lite.run.contents import contents as code

SOURCE = '''
"""Rules of one's own."""
import functools
import jax, numpy as np
import jaxopt_lite as jo

LIMIT = 1.0
TABLE = {"a": [0.05, 0.5]}
ARRAY = np.arange(3.0)
UNUSED = 3

def double(x):
    """Twice."""
    return 2 * x

@functools.lru_cache
def cached(x):
    return double(x) + 1

@jax.jit
def jitted(x):
    return x - 1

class Below:
    least = -1

    def __init__(self, most):
        self.most = most

    def __call__(self, config):
        return self.least < config["learning_rate"] < self.most

def make(most):
    def inside(config):
        # a comment
        return bool(config["learning_rate"] < most)
    return inside

@jo.policy
def own_policy(part: float = 0.5, score=double):
    """A policy."""
    def decide(ledger):
        """What to do."""
        share = part * len(TABLE["a"]) * cached(1) * jitted(2)
        return jo.Decision(target=ledger.steps)
    return decide

@jo.sampler
def own_sampler():
    def ask(space, seed, start, count, points, scores):
        return np.random.default_rng(seed).random((start + count, len(space.dimensions)))[start:] * LIMIT
    return ask

def where(config):
    return bool(config["learning_rate"] < LIMIT) or bool(ARRAY[0] in {1, 2, "x"})

partly = functools.partial(where)
below = Below(1.0)
made = make(1.0)
small = lambda config: bool(config["learning_rate"] < 1.0)
'''
ROOTS = ["own_policy", "own_sampler", "where", "partly", "below", "made", "small"]

CHANGED = {  # what is replaced, by what, and whose code that is
    "2 * x": ("3 * x", ["own_policy"]),
    "double(x) + 1": ("double(x) - 1", ["own_policy"]),
    "return x - 1": ("return x - 2", ["own_policy"]),
    "part: float = 0.5": ("part: float = 0.6", ["own_policy"]),
    "ledger.steps": ("ledger.eval_every", ["own_policy"]),
    "[0.05, 0.5]": ("[0.05, 0.6]", ["own_policy"]),
    "0.5]}": ("0.5], 'b': 1}", ["own_policy"]),
    "* LIMIT": ("/ LIMIT", ["own_sampler"]),
    "default_rng(seed)": ("default_rng(seed + 1)", ["own_sampler"]),
    "LIMIT = 1.0": ("LIMIT = 2.0", ["own_sampler", "where", "partly"]),
    "arange(3.0)": ("arange(4.0)", ["where", "partly"]),
    '{1, 2, "x"}': ('{1, 3, "x"}', ["where", "partly"]),
    "partial(where)": ("partial(where, key=3)", ["partly"]),
    "least = -1": ("least = -2", ["below"]),
    "self.least < config": ("self.least <= config", ["below"]),
    "below = Below(1.0)": ("below = Below(2.0)", ["below"]),
    "made = make(1.0)": ("made = make(2.0)", ["made"]),
    "< most": ("> most", ["made"]),
    '["learning_rate"] < 1.0': ('["learning_rate"] <= 1.0', ["small"]),
    "lambda config: bool": ("lambda config: not bool", ["small"]),
}
SAME = {
    "# a comment": "# another",
    '"""Twice."""': "",
    '"""A policy."""': '"""A longer text."""',
    '"""What to do."""': '"""Another."""',
    "share = part": "portion = part",
    "UNUSED = 3": "UNUSED = 4\nMORE = 5\n",
    "LIMIT = 1.0": "\n\nLIMIT = 1.0",
    "ARRAY = np.arange(3.0)": "ARRAY = np.array([0.0, 1.0, 2.0])",
    "@jo.policy": "from jaxopt_lite import policy\n@policy",
}


def module(source=SOURCE, name="own_rules"):
    made = types.ModuleType(name)
    exec(compile(source, f"{name}.py", "exec"), vars(made))  # its functions' __module__ is its name
    return made


def hashes(made):
    value = lambda name: getattr(made, name)() if name.startswith("own") else getattr(made, name)
    return {name: code(value(name)) for name in ROOTS}


def test_a_change_of_code_or_of_a_constant_in_it_is_seen():
    before = hashes(module())
    assert all(before.values())
    for old, (new, whose) in CHANGED.items():
        assert old in SOURCE
        after = hashes(module(SOURCE.replace(old, new)))
        assert [name for name in ROOTS if before[name] != after[name]] == whose, old


VALUES = {  # of a variable that `where` uses, and what it is changed to
    "range(3)": "range(4)",
    "slice(3)": "slice(4)",
    "bytearray(b'a')": "bytearray(b'b')",
    "[1, 2].count": "[1, 3].count",
    "float('nan')": "float('inf')",
    "decimal.Decimal('1.5')": "decimal.Decimal('1.6')",
    "fractions.Fraction(1, 3)": "fractions.Fraction(1, 4)",
    "datetime.timedelta(seconds=3)": "datetime.timedelta(seconds=4)",
    "pathlib.Path('a')": "pathlib.Path('b')",
    "re.compile('a+')": "re.compile('b+')",
    "types.MappingProxyType({'k': 3})": "types.MappingProxyType({'k': 4})",
    "collections.deque([3])": "collections.deque([4])",
    "collections.Counter('aab')": "collections.Counter('abb')",
    "operator.itemgetter('a')": "operator.itemgetter('b')",
    "np.dtype('float32')": "np.dtype('float16')",
    "np.random.default_rng(0)": "np.random.default_rng(1)",
    "np.poly1d([1, 2])": "np.poly1d([1, 3])",
    "np.vectorize(lambda x: x + 1)": "np.vectorize(lambda x: x + 2)",
    "jax.random.key(0)": "jax.random.key(1)",
    "jax.vmap(lambda x: x + 1)": "jax.vmap(lambda x: x + 2)",
    "jax.grad(lambda x: x**2)": "jax.grad(lambda x: x**3)",
    "optax.exponential_decay(0.1, 10, 0.5)": "optax.exponential_decay(0.1, 10, 0.6)",
    "{'f': lambda x: x + 1}": "{'f': lambda x: x + 2}",
}
CALLED = {  # what `where` is, and the changes of it
    "class Where(typing.NamedTuple):\n    most: int = 3\n    def __call__(self, c): return c['a'] < self.most\n"
    "where = Where()": ["= 3>= 4", "<><="],
    "class Where(dict):\n    def __call__(self, c): return c['a'] < self['k']\nwhere = Where(k=3)": ["=3>=4", "<><="],
    "class Where(float):\n    def __call__(self, c): return c['a'] < self\nwhere = Where(3)": ["(3)>(4)", "<><="],
    "class Where:\n    @functools.cached_property\n    def most(self): return 3\n"
    "    def __call__(self, c): return c['a'] < self.most\nwhere = Where()": ["return 3>return 4"],
    "class Where:\n    def below(self, c, k): return c['a'] < k\n    __call__ = functools.partialmethod(below, k=3)\n"
    "where = Where()": ["=3>=4"],
    "class Kind(type):\n    K = 3\nclass Where(metaclass=Kind):\n    def __call__(self, c): return type(self).K\n"
    "where = Where()": ["K = 3>K = 4"],
    "@functools.singledispatch\ndef of(x): return 1\n@of.register\ndef _(x: int): return 2\n"
    "def where(c): return of(c['a']) < 1": ["return 1>return 3", "return 2>return 3"],
    "def most(): return most.k\nmost.k = 3\ndef where(c): return c['a'] < most()": ["k = 3>k = 4"],
    "exec('def most(x): return x + 1', into := {})\nmost = into['most']\ndef where(c): return most(c['a'])": [
        "+ 1>+ 2"
    ],
    "where = functools.partial(operator.le, 3)": ["3>4"],
    "args = argparse.Namespace(most=3, resume=False)\ndef where(c): return c['a'] < args.most": ["=3>=4"],
}
HEADER = """
import argparse, collections, datetime, decimal, fractions, functools, operator, pathlib, re, types, typing
import jax, numpy as np, optax
"""


def test_a_change_of_anything_that_code_uses_is_seen():
    of = lambda source: code(module(HEADER + source).where)
    using = "K = {}\ndef where(c): return bool(K) or c['a']"
    pairs = [(using.format(old), using.format(new)) for old, new in VALUES.items()]
    pairs += [(source, source.replace(*change.split(">", 1))) for source, all_ in CALLED.items() for change in all_]
    for old, new in pairs:
        assert of(old) == of(old) != of(new), (old, new)


def test_what_code_does_not_use_may_change():
    for source, change in {
        "args = argparse.Namespace(most=3, resume=False)\ndef where(c): return c['a'] < args.most": ("False", "True"),
        "class Where:\n    def f(self): 3\n    def __call__(self, c): 4\nwhere = Where()": (
            "def f(self): 3\n    def __call__(self, c): 4",
            "def __call__(self, c): 4\n    def f(self): 3",
        ),
    }.items():
        first, then = (sorted(code(module(HEADER + text).where).items()) for text in (source, source.replace(*change)))
        assert first == then, source


def test_code_in_a_package_is_found_through_its_modules(monkeypatch):
    def hashed(of_deep="2 * x", of_top=1):
        sources = {
            "own.deep.er": f"K = 3\ndef f(x): return K * {of_deep}",
            "own.deep": "import own.deep.er as er",
            "own": f"import own.deep.er\nfrom own import deep\nTOP = {of_top}",
        }
        for name in sources:  # which import each other
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        for name in sources:
            parent, _, child = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], child, sys.modules[name])
            sys.modules[name].__file__ = str(Path(np.__file__).parents[1] / name / "__init__.py")  # it is installed
            exec(sources[name], vars(sys.modules[name]))
        rules = module("import own\ndef where(c): return own.deep.er.f(c['a']) < own.TOP", "own.rules")
        return code(rules.where)

    before = hashed()
    assert before == hashed() and {"f", "K, used by f", "own.TOP, used by where"} <= set(before)
    assert hashed(of_deep="3 * x")["f"] != before["f"] and hashed(of_top=2) != before


def test_what_is_not_code_and_where_it_is_may_change():
    before = hashes(module())
    for old, new in SAME.items():
        assert old in SOURCE
        assert hashes(module(SOURCE.replace(old, new))) == before, old
    assert hashes(module(name="__main__")) == before == hashes(module(name="package.of.rules"))


def test_code_of_an_installed_module_counts_too(monkeypatch):
    made = module()
    made.__file__ = str(Path(np.__file__).parents[1] / "own_rules.py")
    monkeypatch.setitem(sys.modules, "own_rules", made)
    assert hashes(made) == hashes(module(name="elsewhere"))


def test_code_has_the_same_hash_in_every_process():
    script = "import json, tests.test_contents as t; print(json.dumps(t.hashes(t.module())))"
    root = Path(__file__).parents[1]
    env = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env, cwd=root)
    assert json.loads(done.stdout) == hashes(module()), done.stderr


def test_values_of_the_package_have_no_code_of_their_own():
    for value in (jo.sobol(), jo.tpe(), jo.successive_halving(4), jo.median_stopping(), None):
        assert code(value) == {}


def test_objects_that_are_strange_are_no_obstacle():
    class Strange:
        def __getattr__(self, name):
            raise RuntimeError(name)

        def __call__(self):
            return strange, loop, objects, key

    strange, loop, objects, key = Strange(), [1], np.array([None, "a"], object), jax.random.key(0)
    loop.append(loop)
    assert code(strange) == code(strange) != code(lambda: (strange, loop, objects, key, sys, jax.nn.relu, np.exp))
