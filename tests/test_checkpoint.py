"""What is saved comes back bit for bit, whatever happens to the process or to the files."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("orbax.checkpoint")

from jaxopt_lite import checkpoint

RNG = np.random.default_rng(0)
ARRAYS = {
    "float64": RNG.normal(size=(3, 4)),
    "jax": jnp.arange(6, dtype=jnp.float32).reshape(2, 3),
    "bfloat16": jnp.linspace(0, 1, 5).astype(jnp.bfloat16),
    "float16": np.float16([1, np.inf]),
    "bool": np.array([True, False]),
    "int8": np.int8([-128, 127]),
    "int4": jnp.array([-8, 7], jnp.int4),
    "uint32": np.uint32([0, 2**32 - 1]),
    "int64": np.array([2**62]),
    "complex": np.array([1 + 2j]),
    "scalars": {"float64": np.array(0.1), "float32": np.float32(0.1), "bool": np.bool_(True)},
    "empty": {"rows": np.empty((0, 4)), "columns": np.empty((3, 0), np.int8), "dict": {}},
    "signs": np.array([-0.0, 0.0, np.nan]),
    "nan": np.frombuffer(b"\x01\x00\xc0\x7f\xff\xff\xff\xff", np.float32),  # two of many
    "zeros": -np.zeros(100),
    "a/b": {"c.d": np.ones(2), "../x": np.ones(1), "": np.ones(3), "ä %#?": np.ones(4)},
    "a": {"b": np.zeros(2)},
    "transposed": np.arange(6.0).reshape(2, 3).T,
    "strided": np.arange(6)[::-2],
}
META = {"step": 3, "note": "ü", "scores": [1.5, float("nan"), None], "nested": {"a.b/c": True}}


def bits(arrays):
    """The tree with (dtype, shape, bytes) in place of arrays."""
    return jax.tree.map(lambda x: (str(x.dtype), x.shape, np.asarray(x).tobytes()), arrays)


def rewrite(path, change):
    """Change the meta.json of a save."""
    content = json.loads((path / "meta.json").read_text())
    change(content)
    (path / "meta.json").write_text(json.dumps(content))


def test_everything_comes_back(tmp_path):
    directory = tmp_path / "a b%20ü#?" / "saves"
    path = checkpoint.save(directory, ARRAYS, META)
    saved = checkpoint.load(directory)
    assert path == saved.path == directory / "000001"
    assert bits(saved.arrays) == bits(ARRAYS)
    assert all(type(x) is np.ndarray for x in jax.tree.leaves(saved.arrays))
    assert json.dumps(saved.meta) == json.dumps(META)
    assert saved.warnings == ()


ODD = ["a[b]", "[", "]", "back\\slash", "\\", "gs:", "s3:", "file:", "a:b", "?", "*", "**", "{x}", "$HOME", "~"]
ODD += ["#", "%41", "ü", " ", "a.", "..a", "|", "'", '"', "&;!", "new\nline", os.fsdecode(b"\xff")]


@pytest.mark.skipif(os.name == "nt", reason="most of these characters are in no path there")
@pytest.mark.parametrize("under", [False, True], ids=["itself", "above"])
def test_a_directory_of_any_name_can_be_read_again(tmp_path, under):
    for name in ODD:
        directory = tmp_path / name / "saves" if under else tmp_path / name
        checkpoint.save(directory, {"x": np.arange(3)}, {"i": 1})
        assert bits(checkpoint.load(directory).arrays) == bits({"x": np.arange(3)}), name
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(ODD)


def test_a_directory_that_could_not_be_read_again_is_refused_at_once(tmp_path, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise OSError("no privilege")

    checkpoint.require_orbax(tmp_path / "a[b]")
    checkpoint.save(tmp_path / "a[b]", {"x": np.ones(2)}, {})
    monkeypatch.setattr(Path, "symlink_to", refuse)
    checkpoint.require_orbax(tmp_path / "ä b")
    save = lambda directory: checkpoint.save(directory, {"x": np.ones(2)}, {})
    for call in (checkpoint.require_orbax, save, checkpoint.load):
        with pytest.raises(OSError, match=r"Orbax misreads \[ \] in a path, .*no privilege.*; give another"):
            call(tmp_path / "a[b]")


def test_arrays_that_orbax_cannot_read_give_way_to_the_save_before(tmp_path):
    for i in (1, 2):
        checkpoint.save(tmp_path, {"x": np.ones(2)}, {"i": i})
    shutil.rmtree(tmp_path / "000002" / "arrays")
    rewrite(tmp_path / "000002", lambda content: content.update(digest=digest_of(content, tmp_path / "000002")))
    saved = checkpoint.load(tmp_path)
    assert saved.meta == {"i": 1} and "000002 is damaged" in saved.warnings[0]


def digest_of(content, path):
    return checkpoint._digest({name: content[name] for name in ("tree", "meta")}, path / "arrays")


@pytest.mark.parametrize("arrays", [{}, {"a": {}}, {"a": np.empty((0, 2))}])
def test_nothing_to_write(tmp_path, arrays):
    checkpoint.save(tmp_path, arrays, {})
    assert bits(checkpoint.load(tmp_path).arrays) == bits(arrays)


def test_byte_order_is_the_machines(tmp_path):
    checkpoint.save(tmp_path, {"x": np.arange(3, dtype=">f4")}, {})
    assert bits(checkpoint.load(tmp_path).arrays) == bits({"x": np.arange(3, dtype=np.float32)})


def test_a_relative_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint.save("here", {"x": np.ones(2)}, {})
    assert checkpoint.load("here").path == tmp_path / "here" / "000001"


def test_saves_are_numbered_and_the_last_stay(tmp_path):
    for i in range(1, 6):
        assert checkpoint.save(tmp_path, {"x": np.full(3, i)}, {"i": i}, keep=3).name == f"{i:06d}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000003", "000004", "000005"]
    checkpoint.save(tmp_path, {"x": np.full(3, 6)}, {"i": 6}, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["000006"]
    assert checkpoint.load(tmp_path).meta == {"i": 6}


def test_there_is_nothing(tmp_path):
    assert checkpoint.load(tmp_path) is None
    assert checkpoint.load(tmp_path / "nowhere") is None
    assert not (tmp_path / "nowhere").exists()


def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "000001x").mkdir()
    checkpoint.save(tmp_path, {"x": np.ones(2)}, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000001", "000001x", "notes.txt"]


def test_leftovers_are_not_read_and_go_with_the_next_save(tmp_path):
    checkpoint.save(tmp_path, {"x": np.ones(2)}, {"i": 1})
    shutil.copytree(tmp_path / "000001", tmp_path / "000002.new")
    assert checkpoint.load(tmp_path).path.name == "000001"
    assert checkpoint.save(tmp_path, {"x": np.ones(2)}, {"i": 2}).name == "000002"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000001", "000002"]


def files(path):
    return sorted(p for p in path.rglob("*") if p.is_file())


def largest(path):
    return max(files(path / "arrays"), key=lambda p: p.stat().st_size)


def truncate(path):
    with largest(path).open("r+b") as file:
        file.truncate(largest(path).stat().st_size // 2)


def flip(path):
    data = bytearray(largest(path).read_bytes())
    data[len(data) // 2] ^= 1
    largest(path).write_bytes(bytes(data))


def empty(path):
    shutil.rmtree(path)
    path.mkdir()


DAMAGES = {
    "truncated": truncate,
    "flipped": flip,
    "missing": lambda path: largest(path).unlink(),
    "no arrays": lambda path: shutil.rmtree(path / "arrays"),
    "no meta": lambda path: (path / "meta.json").unlink(),
    "half meta": lambda path: (path / "meta.json").write_text((path / "meta.json").read_text()[:-20]),
    "empty": empty,
    "a file": lambda path: (shutil.rmtree(path), path.write_text("")),
    "other meta": lambda path: rewrite(path, lambda content: content["meta"].update(i=3)),
    "other dtype": lambda path: rewrite(path, lambda content: content["tree"].update(e=["int8", [0, 2]])),
    "other shape": lambda path: rewrite(path, lambda content: content["tree"].update(x=["float64", [100, 10]])),
    "other name": lambda path: rewrite(path, lambda content: content["tree"].update(y=content["tree"].pop("x"))),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_save_gives_way_to_the_one_before(tmp_path, damage):
    arrays = {"x": RNG.normal(size=(1000,)), "e": np.empty((0, 2))}
    for i in (1, 2):
        checkpoint.save(tmp_path, arrays, {"i": i})
    DAMAGES[damage](tmp_path / "000002")
    saved = checkpoint.load(tmp_path)
    assert saved.meta == {"i": 1} and bits(saved.arrays) == bits(arrays)
    assert len(saved.warnings) == 1 and str(tmp_path / "000002") in saved.warnings[0]
    assert "damaged" in saved.warnings[0] and "000001" in saved.warnings[0]
    if damage != "a file":
        assert checkpoint.save(tmp_path, arrays, {"i": 3}).name == "000003"
        assert checkpoint.load(tmp_path).warnings == ()


@pytest.mark.parametrize("damage", ["truncated", "empty"])
def test_all_damaged(tmp_path, damage):
    for i in (1, 2):
        checkpoint.save(tmp_path, {"x": RNG.normal(size=(1000,))}, {"i": i})
        DAMAGES[damage](tmp_path / f"{i:06d}")
    with pytest.raises(
        ValueError, match=r"no save in .* can be read: .*000002 is damaged .*000001 is damaged .*remove"
    ):
        checkpoint.load(tmp_path)


def test_any_flipped_byte_is_found_or_harmless(tmp_path):
    """Whichever file of the save it is in."""
    arrays = {"x": RNG.normal(size=(50,)), "y": np.zeros(50), "n": np.int8([1, 2])}
    for i in (1, 2):
        checkpoint.save(tmp_path / "good", arrays, {"i": i})
    rng = random.Random(0)
    for number in range(40):
        shutil.copytree(tmp_path / "good", tmp_path / str(number))
        path = rng.choice([p for p in files(tmp_path / str(number) / "000002") if p.stat().st_size])
        data = bytearray(path.read_bytes())
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(bytes(data))
        saved = checkpoint.load(tmp_path / str(number))
        assert bits(saved.arrays) == bits(arrays)
        assert (saved.meta, len(saved.warnings)) in (({"i": 1}, 1), ({"i": 2}, 0)), path


@pytest.mark.parametrize(
    ("arrays", "meta", "error", "message"),
    [
        ({"a": {1: np.ones(2)}}, {}, TypeError, r"keys of arrays must be strings, got 1 in \['a'\]"),
        ({"a": [np.ones(2)]}, {}, TypeError, r"arrays\['a'\] must be an array of numbers, got list"),
        ({"a": {"b": 1.0}}, {}, TypeError, r"arrays\['a'\]\['b'\] must be an array of numbers, got float"),
        ({"a": None}, {}, TypeError, "got NoneType"),
        ({"a": np.array(["x"])}, {}, TypeError, "must be an array of numbers"),
        ({"a": np.array([None])}, {}, TypeError, "must be an array of numbers"),
        ({"a": jax.random.key(0)}, {}, TypeError, "key_data"),
        ({}, {"a": np.ones(2)}, TypeError, "JSON"),
    ],
)
def test_what_cannot_be_saved(tmp_path, arrays, meta, error, message):
    with pytest.raises(error, match=message):
        checkpoint.save(tmp_path / "saves", arrays, meta)
    assert not (tmp_path / "saves").exists()


def test_keep_is_at_least_one(tmp_path):
    with pytest.raises(ValueError, match="keep must be at least 1, got 0"):
        checkpoint.save(tmp_path, {}, {}, keep=0)


def test_without_orbax(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, {}, {})
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    monkeypatch.setitem(sys.modules, "orbax", None)
    for call in (lambda: checkpoint.save(tmp_path, {}, {}), lambda: checkpoint.load(tmp_path)):
        with pytest.raises(ImportError, match=r"pip install 'jaxopt-lite\[checkpoints\]'"):
            call()


def test_orbax_says_nothing(tmp_path):
    """In a process of its own, since pytest takes the log."""
    code = f"""
        import warnings; warnings.simplefilter("error")
        import numpy as np
        from jaxopt_lite import checkpoint
        for i in range(3):
            checkpoint.save({str(tmp_path)!r}, {{"x": np.full((3, 2), i)}}, {{}})
            checkpoint.load({str(tmp_path)!r})
    """
    done = run(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def run(code):
    arguments = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(arguments, capture_output=True, text=True, env={**os.environ, "JAX_PLATFORMS": "cpu"})


@pytest.mark.slow
def test_killed_at_any_moment(tmp_path):
    """A process that saves without end is killed at random moments; there is always a whole save, and none is lost."""
    code = f"""
        import sys, numpy as np
        from jaxopt_lite import checkpoint
        saved = checkpoint.load({str(tmp_path)!r})
        i = 0 if saved is None else saved.meta["i"]
        assert saved is None or not saved.warnings
        while True:
            i += 1
            checkpoint.save({str(tmp_path)!r}, {{"x": np.full(20_000, i), "y": np.full((3,), i)}}, {{"i": i}})
            print(i, flush=True)
    """
    rng, last = random.Random(0), 0
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
        )
        first = process.stdout.readline()
        assert first and int(first) >= last, "it did not resume from the last save"
        time.sleep(rng.uniform(0.0, 0.15))
        process.send_signal(signal.SIGKILL)
        lines = [first, *process.communicate()[0].splitlines()]
        last = int([line for line in lines if line.strip()][-1])
        saved = checkpoint.load(tmp_path)
        assert saved.warnings == () and saved.meta["i"] in (last, last + 1)
        last = saved.meta["i"]
        assert np.all(saved.arrays["x"] == last) and np.all(saved.arrays["y"] == last)
        assert len(list(tmp_path.iterdir())) <= 4  # two that stay, one that is about to go, one that is being written
