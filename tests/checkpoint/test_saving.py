"""What is saved is loaded again, the same bits, without or with a value that it is like."""

import collections
import dataclasses
import enum
import json
import shutil
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

pytest.importorskip("orbax.checkpoint")

import jaxopt_lite as jo
from jaxopt_lite.checkpoint import folder, packing, saving, unpacking
from tests.contract.table import RECIPES, TRANSFORMATIONS, problem
from tests.train.tasks import LINEAR, TRAIN, VALID, init, loss


class Colour(enum.Enum):
    RED = 1


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass
class Doubled:
    data: Any
    counts: list = dataclasses.field(init=False)

    def __post_init__(self):
        self.data, self.counts = 2 * self.data, []


class Pair(NamedTuple):
    first: Any
    second: Any = 5


@dataclasses.dataclass
class Record:
    name: str
    data: Any


def clip_all(tree):
    return jax.tree.map(lambda leaf: True, tree)


def assert_equal(a, b):
    """Equal structures, types, dtypes and bits."""
    leaves, structure = jax.tree.flatten(a)
    others, other = jax.tree.flatten(b)
    assert structure == other
    for x, y in zip(leaves, others, strict=True):
        assert type(x) is type(y)
        if hasattr(x, "dtype"):
            assert x.dtype == y.dtype and x.shape == y.shape
            x, y = (jax.random.key_data(k) if jnp.issubdtype(k.dtype, jax.dtypes.prng_key) else k for k in (x, y))
            assert np.asarray(x).tobytes() == np.asarray(y).tobytes()
        else:
            assert x == y or x != x


def through(value, like=None):
    """The value after a round trip through JSON, without the disk."""
    arrays, description = packing.pack(value)
    description = json.loads(json.dumps(description))
    return unpacking.unpack(description, folder.on_host(arrays), {} if like is None else {"": like})


@pytest.mark.parametrize("rows", [TRANSFORMATIONS, RECIPES], ids=["transformations", "recipes"])
def test_every_optimizer_and_its_state_are_made_again(rows):
    """By their names alone; and into shapes, as a run is resumed."""
    for name, optimizer in rows.items():
        params, _ = problem(name)
        try:
            arrays, description = packing.pack(optimizer)
        except TypeError as error:
            assert "which has no name to find it by again; use a function of a module" in str(error), name
            continue
        again = unpacking.unpack(json.loads(json.dumps(description)), folder.on_host(arrays))
        assert again == optimizer, name
        state = optimizer.init(params)
        assert_equal(through(state), state)
        assert_equal(through(state, jax.eval_shape(optimizer.init, params)), state)


VALUES = {
    "numbers": (1, 2.5, "x", True, None, float("nan"), float("-inf"), 1j, -0.0),
    "containers": {"b": [1, (2,)], "a": {}, "c": []},
    "keys of dicts": {3: 1, 1: 2},
    "sets": [{1, "a"}, frozenset({(1, 2)})],
    "ordered": collections.OrderedDict(b=1, a=2),
    "arrays": {"np": np.arange(3), "scalar": np.float32(3), "jax": jnp.arange(2.0), "bf16": jnp.ones(2, jnp.bfloat16)},
    "empty": {"rows": np.empty((0, 3)), "strings": np.array(["a", "bc"])},
    "keys": {
        "one": jax.random.key(3),
        "many": jax.random.split(jax.random.key(1), (2, 3)),
        "old": jax.random.PRNGKey(0),
    },
    "named tuple": Pair(jnp.ones(2), Pair(1, "x")),
    "dataclass": Record("x", {"w": jnp.ones(2)}),
    "enums and dtype": [Colour.RED, Rights.READ | Rights.WRITE, Rights(0), jnp.dtype("bfloat16")],
    "functions": {"optax": optax.adam, "own": clip_all},
    "solver": jo.solvers.lbfgs(memory=3),
    "lifted": jo.lift(optax.contrib.muon)(0.1),
    "batch of optimizers": jax.vmap(jo.adam)(jnp.array([0.1, 0.2])),
}


def test_values_of_every_sort_come_back():
    for name, value in VALUES.items():
        again = through(value)
        if name == "dataclass":
            assert type(again) is Record and again.name == "x"
            again, value = again.data, value.data
        assert_equal(again, value), name
    doubled = Doubled(jnp.ones(2))
    doubled.counts.append(3)
    again = through(doubled)
    assert (again.data.tolist(), again.counts) == ([2, 2], [3]), "what __post_init__ has done is not done again"
    assert list(through(VALUES["keys of dicts"])) == [3, 1], "a dict keeps its order"


@pytest.fixture(scope="module")
def result():
    task = jo.Task(init, loss, TRAIN, VALID)
    return jo.fit(task, jo.adam(0.1), 4, 4, eval_every=2, patience=3, restore_best=True, metric="valid.loss")


def test_results_and_solutions_are_saved_as_they_are(result, tmp_path):
    path = tmp_path / "a[b] ü"
    assert jo.save(path, result) == path
    loaded = jo.load(path)
    assert_equal((loaded.params, loaded.state, loaded.history), (result.params, result.state, result.history))
    assert (loaded.status, loaded.steps, loaded.metrics, loaded.message) == (
        *(result.status, result.steps, result.metrics, result.message),
    )
    solution = jo.minimize(lambda x: jnp.sum((x - 1) ** 2), jnp.zeros(3))
    jo.save(path, solution, overwrite=True)
    assert_equal(jo.load(path), solution)
    assert repr(jo.load(path)) == repr(solution)
    assert [p.name for p in tmp_path.iterdir()] == [path.name], "nothing is left beside it"


def test_other_pytrees_need_a_value_that_they_are_like(tmp_path):
    module = eqx.nn.Linear(2, 3, key=jax.random.key(0))
    jo.save(tmp_path / "it", {"model": module, "n": 3})
    with pytest.raises(ValueError, match=r"load: \['model'\]: equinox.*Linear has changed .*give like="):
        jo.load(tmp_path / "it")
    shapes = jax.eval_shape(lambda: {"model": module, "n": 3})
    assert_equal(jo.load(tmp_path / "it", like={"model": module, "n": 3}), {"model": module, "n": 3})
    assert jo.load(tmp_path / "it", like=shapes)["model"].weight.shape == (3, 2)


def test_what_is_loaded_goes_where_like_is(tmp_path):
    jo.save(tmp_path / "it", {"w": np.arange(4.0, dtype=np.float32)})
    where = jax.sharding.NamedSharding(jax.make_mesh((1,), ("data",)), jax.sharding.PartitionSpec("data"))
    loaded = jo.load(tmp_path / "it", like={"w": jax.ShapeDtypeStruct((4,), jnp.float32, sharding=where)})
    assert loaded["w"].sharding == where and loaded["w"].tolist() == [0, 1, 2, 3]


def test_another_structure_is_refused_with_the_paths_that_differ(result):
    arrays, description = packing.pack(result.state)
    like = result.state._replace(params={"w": jnp.zeros(5), "c": jnp.zeros(())})
    with pytest.raises(ValueError) as raised:
        unpacking.unpack(description, arrays, {"": like})
    lines = str(raised.value).splitlines()
    assert lines[0] == "load: the file holds another structure:"
    assert lines[1:] == [
        "  .params['b']: only in the file",
        "  .params['c']: not in the file",
        "  .params['w']: float32[4] in the file, float32[5] here",
    ]


def test_what_cannot_be_saved_is_named():
    for value, message in (
        ({"a": [lambda x: x]}, r"save: \['a'\]\[0\] is the function <lambda>, which has no name"),
        (jo.masked(jo.sgd(0.1), lambda p: p), "save: the value is the function <lambda>"),
        ({"a": np.array([None])}, r"\['a'\] is an array of objects"),
        ({"a": object()}, r"\['a'\] is of type object, which has no description; save the arrays"),
        (
            {"a": np.array(["2026-01-01"], "datetime64[D]")},
            r"\['a'\] has the dtype datetime64\[D\], which",
        ),
        (np.timedelta64(3, "s"), "has the dtype timedelta64"),
        (np.array([b"x"]), r"the array has the dtype \|S1"),
        (np.ones(2, np.longdouble), "has the dtype float128|has the dtype longdouble"),
        (np.zeros(2, jax.dtypes.float0), "has the dtype"),
        (np.ma.array([1, 2], mask=[0, 1]), "is a masked array; save its data and its mask"),
    ):
        with pytest.raises(TypeError, match=message):
            packing.pack(value)
    with pytest.raises(TypeError, match=r"\['w'\] is traced; call it outside jit"):
        jax.jit(lambda w: packing.pack({"w": w}))(1.0)
    used = jnp.ones(3)
    used.delete()
    with pytest.raises(TypeError, match="is used up"):
        packing.pack(used)


def test_a_later_version_reads_what_an_earlier_one_saved():
    """A field or an argument that came later gets its default; one that is gone is told, with the remedy."""
    arrays, description = packing.pack(Pair(1, 2))
    del description["fields"]["second"]
    assert unpacking.unpack(description, arrays) == Pair(1, 5)
    description["fields"]["third"] = 3
    with pytest.raises(ValueError, match=r"Pair has changed since it was saved.*third.*give like="):
        unpacking.unpack(description, arrays)
    arrays, description = packing.pack(jo.adam(0.1))
    del description["arguments"]["eps"]
    assert unpacking.unpack(description, arrays) == jo.adam(0.1)
    description["call"] = "jaxopt_lite.elsewhere:adam"
    assert unpacking.unpack(description, arrays) == jo.adam(0.1), "a rule may move to another module"
    description["arguments"]["shine"] = 1
    with pytest.raises(ValueError, match="it has no argument 'shine'"):
        unpacking.unpack(description, arrays)
    with pytest.raises(ValueError, match=r"is of nowhere\.at:all, which is not there; import its module"):
        unpacking.unpack({"fields": {}, "of": "nowhere.at:all"}, {})
    with pytest.raises(ValueError, match="was written by a newer version: 'quantum'"):
        unpacking.unpack({"quantum": 1}, {})


def test_files_are_refused_or_replaced_in_words(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        jo.load(tmp_path / "it")
    jo.save(tmp_path / "it", 1)
    with pytest.raises(FileExistsError, match=r"exists already; give another path, or overwrite=True"):
        jo.save(tmp_path / "it", 2)
    (tmp_path / "mine").mkdir()
    with pytest.raises(FileExistsError, match="exists, and save did not write it; give another path"):
        jo.save(tmp_path / "mine", 2, overwrite=True)
    with pytest.raises(TypeError, match="save: overwrite must be True or False, got the string 'yes'"):
        jo.save(tmp_path / "it", 2, overwrite="yes")
    (tmp_path / "link").symlink_to(tmp_path / "it")
    jo.save(tmp_path / "link", 1, overwrite=True)
    assert (tmp_path / "link").is_symlink() and jo.load(tmp_path / "it") == jo.load(tmp_path / "link") == 1
    with monkeypatch.context() as patched:  # killed while it replaces
        patched.setattr(saving.Path, "rename", lambda self, to: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            jo.save(tmp_path / "it", 2, overwrite=True)
    assert jo.load(tmp_path / "it") == 1
    (tmp_path / "it").rename(saving._beside(tmp_path / "it", "old"))
    assert jo.load(tmp_path / "it") == 1, "the one before, where it was killed between two names"
    jo.save(tmp_path / "it", 3)
    assert jo.load(tmp_path / "it") == 3
    (tmp_path / "it" / "content" / "metadata").write_text("{}")
    with pytest.raises(ValueError, match=r"it is damaged .*has changed since it was written"):
        jo.load(tmp_path / "it")
    shutil.rmtree(tmp_path / "it")


def test_loading_runs_nothing_because_a_file_says_so():
    with pytest.raises(ValueError, match="which is not there; import its module first"):
        unpacking.unpack({"named": "antigravity:fly"}, {})
    import sys

    assert "antigravity" not in sys.modules
    assert LINEAR.train is not None
