"""What is saved comes back bit for bit, whatever happens to the process or to the files."""

import errno
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

from jaxopt_lite.checkpoint import folder, store
from jaxopt_lite.checkpoint.store import Store

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
    "float64 of no dimension": np.array(0.1),
    "bool of no dimension": np.array(True),
    "no rows": np.empty((0, 4)),
    "no columns": np.empty((3, 0), np.int8),
    "signs": np.array([-0.0, 0.0, np.nan]),
    "nan": np.frombuffer(b"\x01\x00\xc0\x7f\xff\xff\xff\xff", np.float32),  # two of many
    "zeros": -np.zeros(100),
    "a/b": np.ones(2),
    "../x": np.ones(1),
    "": np.ones(3),
    "ä %#?": np.ones(4),
    "transposed": np.arange(6.0).reshape(2, 3).T,
    "strided": np.arange(6)[::-2],
}
CONTENT = {"step": 3, "note": "ü", "scores": [1.5, float("nan"), None], "nested": {"a.b/c": True}}


def bits(arrays):
    """The tree with (dtype, shape, bytes) in place of arrays."""
    return jax.tree.map(lambda x: (str(x.dtype), x.shape, np.asarray(x).tobytes()), arrays)


def write(directory, *contents, keep=2, **arguments):
    """Save checkpoints 1, 2, ... with these contents; return the folder of the last."""
    writer = Store(directory, keep=keep, **arguments)
    for i, content in enumerate(contents, 1):
        writer.save(i, {"x": np.arange(1000.0), "e": np.empty((0, 2))}, content)
    writer.close()
    return directory / f"{len(contents):06d}"


def test_everything_comes_back(tmp_path, monkeypatch):
    directory = tmp_path / "a b%20ü#?" / "saves"
    writer = Store(directory)
    writer.save(7, ARRAYS, CONTENT)
    writer.close()
    path, saved, faults = store.latest(directory)
    assert path == directory / "000007" and not faults
    assert bits(saved.arrays) == bits(ARRAYS)
    assert all(type(x) is np.ndarray for x in saved.arrays.values())
    assert json.dumps(saved.content) == json.dumps(CONTENT)
    monkeypatch.chdir(directory)
    some = folder.read(Path(path.name), lambda content: ["int8", "no rows"])
    assert bits(some.arrays) == bits({name: ARRAYS[name] for name in ("no rows", "int8")})


ODD = ["a[b]", "[", "]", "back\\slash", "\\", "gs:", "s3:", "file:", "a:b", "?", "*", "**", "{x}", "$HOME", "~"]
ODD += ["#", "%41", "ü", " ", "a.", "..a", "|", "'", '"', "&;!", "new\nline", os.fsdecode(b"\xff")]


@pytest.mark.skipif(os.name == "nt", reason="most of these characters are in no path there")
def test_a_directory_of_any_name_can_be_read_again(tmp_path):
    for name in ODD:
        write(tmp_path / name / name, {"i": 1})
        assert store.latest(tmp_path / name / name)[1].content == {"i": 1}, name
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(ODD)


def test_a_directory_that_could_not_be_read_again_is_refused_at_once(tmp_path, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise OSError("no privilege")

    write(tmp_path / "a[b]", {})
    monkeypatch.setattr(Path, "symlink_to", refuse)
    folder.require_orbax(tmp_path / "ä b")
    for call in (folder.require_orbax, lambda path: write(path, {}, {}), store.latest):
        with pytest.raises(OSError, match=r"Orbax misreads \[ \] in a path, .*no privilege.*; give another"):
            call(tmp_path / "a[b]")


def test_nothing_to_write(tmp_path):
    for i, arrays in enumerate(({}, {"a": np.empty((0, 2))})):
        writer = Store(tmp_path)
        writer.save(i, arrays, {})
        writer.close()
        assert bits(store.latest(tmp_path)[1].arrays) == bits(arrays)


def test_arrays_are_copied_and_in_the_byte_order_of_the_machine(tmp_path):
    writer, x = Store(tmp_path), np.arange(3, dtype=">f4")
    writer.save(1, {"x": x}, {})
    x[:] = 7
    writer.close()
    assert bits(store.latest(tmp_path)[1].arrays) == bits({"x": np.arange(3, dtype=np.float32)})


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_the_latest_and_the_best_are_kept(tmp_path):
    writer = Store(tmp_path, keep=2, keep_best=True)
    for step, score in ((10, 3.0), (20, float("nan")), (30, 1.0), (40, 2.0), (50, None), (60, 1.0)):
        writer.save(step, {"x": np.ones(2)}, {}, score)
    writer.close()
    assert names(tmp_path) == ["000030", "000050", "000060"], "of two equal ones the earlier is the best"
    assert [seal.score for _, seal in store.complete(tmp_path)] == [1.0, None, 1.0]
    assert all(seal.bytes > 0 and seal.saved.startswith("20") for _, seal in store.complete(tmp_path))
    write(tmp_path / "without", *({"i": i} for i in range(4)), keep=1)
    assert names(tmp_path / "without") == ["000004"]


def test_there_is_nothing(tmp_path):
    assert store.latest(tmp_path) is None and store.latest(tmp_path / "nowhere") is None
    assert list(store.complete(tmp_path / "nowhere")) == [] and not (tmp_path / "nowhere").exists()


def test_other_files_are_left_alone_and_leftovers_go(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "000001x").mkdir()
    (tmp_path / "000009").mkdir()  # killed before it was complete
    assert store.latest(tmp_path) is None
    write(tmp_path, {})
    assert names(tmp_path) == ["000001", "000001x", "notes.txt"]


def test_what_version_0_1_0_saved_is_not_taken_for_unfinished(tmp_path):
    (tmp_path / "000003").mkdir()
    (tmp_path / "000003" / "meta.json").write_text("{}")
    with pytest.raises(ValueError, match=r"000003 was saved by version 0\.1\.0"):
        store.latest(tmp_path)


def files(path):
    return sorted(p for p in path.rglob("*") if p.is_file())


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


HARM = {
    "flipped": flip,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "emptied": lambda path: path.write_bytes(b""),
    "missing": lambda path: path.unlink(),
}


@pytest.mark.parametrize("harm", HARM)
def test_each_damaged_file_is_found_and_the_checkpoint_before_is_used(tmp_path, harm):
    last = write(tmp_path / "good", {"i": 1}, {"i": 2})
    everything = [path.relative_to(tmp_path / "good") for path in files(last)]
    assert len(everything) > 8
    for name in everything:
        shutil.copytree(tmp_path / "good", tmp_path / "bad")
        HARM[harm](tmp_path / "bad" / name)
        path, saved, faults = store.latest(tmp_path / "bad")
        assert saved.content == {"i": 1} and path.name == "000001", name
        assert len(faults) == 1 and "000002" in faults[0] and "the one before it is used, 000001" in faults[0]
        assert ("was not finished" if (harm, name.name) == ("missing", folder.SEAL) else "is damaged") in faults[0]
        shutil.rmtree(tmp_path / "bad")
    HARM[harm](last / "content" / "metadata")
    store.set_aside(tmp_path / "good", path)
    write(tmp_path / "good", {"i": 3}, {"i": 4})
    assert names(tmp_path / "good") == ["000001", "000002", "000002.damaged"]
    assert store.latest(tmp_path / "good")[1].content == {"i": 4}
    assert store.latest(tmp_path / "good")[2] == []


def test_all_damaged(tmp_path):
    last = write(tmp_path, {"i": 1}, {"i": 2})
    for path in (tmp_path / "000001", last):
        flip(path / "content" / "metadata")
    with pytest.raises(ValueError, match=r"no checkpoint in .* can be read: .*000002 is damaged .*000001 .*overwrite"):
        store.latest(tmp_path)


def test_what_cannot_be_written_is_told_at_the_next_save_or_the_end(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = Store(tmp_path)
    writer.save(1, {"x": np.ones(2)}, {"i": 1})
    writer.wait()
    with monkeypatch.context() as patched:
        patched.setattr(folder, "seal", full)
        writer.save(2, {"x": np.ones(2)}, {"i": 2})
        with pytest.raises(OSError, match="No space left"):
            writer.wait()
    assert store.latest(tmp_path)[1].content == {"i": 1}, "the last good one is whole"
    writer.save(3, {"x": np.ones(2)}, {"i": 3})
    writer.save(4, {"x": np.ones(2)}, {"i": object()})
    with pytest.raises(TypeError, match="JSON"):
        writer.close()
    assert store.latest(tmp_path)[1].content == {"i": 3}
    writer = Store(tmp_path, keep=3)
    writer.save(5, {"x": np.ones(2)}, {"i": 5})
    writer.close()
    assert names(tmp_path) == ["000001", "000003", "000005"], "what was not finished is removed"


def test_without_orbax(tmp_path, monkeypatch):
    write(tmp_path, {})
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    monkeypatch.setitem(sys.modules, "orbax", None)
    for call in (lambda: write(tmp_path, {}), lambda: store.latest(tmp_path)):
        with pytest.raises(ImportError, match=r"pip install 'jaxopt-lite\[checkpoints\]'"):
            call()


def test_orbax_says_nothing(tmp_path):
    """In a process of its own, since pytest takes the log."""
    code = f"""
        import warnings; warnings.simplefilter("error")
        import pathlib, numpy as np
        from jaxopt_lite.checkpoint import store
        writer = store.Store(pathlib.Path({str(tmp_path)!r}))
        for i in range(3):
            writer.save(i, {{"x": np.full((3, 2), i)}}, {{}})
            writer.wait()
            store.latest(writer.path)
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
        import pathlib, numpy as np
        from jaxopt_lite.checkpoint import store
        found = store.latest(pathlib.Path({str(tmp_path)!r}))
        i = 0 if found is None else found[1].content["i"]
        writer = store.Store(pathlib.Path({str(tmp_path)!r}))
        while True:
            i += 1
            writer.save(i, {{"x": np.full(20_000, i), "y": np.full((3,), i)}}, {{"i": i}})
            writer.wait()
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
        time.sleep(rng.uniform(0.0, 0.3))
        process.send_signal(signal.SIGKILL)
        lines = [first, *process.communicate()[0].splitlines()]
        last = int([line for line in lines if line.strip()][-1])
        path, saved, faults = store.latest(tmp_path)
        assert saved.content["i"] in (last, last + 1) and int(path.name) == saved.content["i"]
        assert not any("damaged" in fault for fault in faults)
        last = saved.content["i"]
        assert np.all(saved.arrays["x"] == last) and np.all(saved.arrays["y"] == last)
        assert len(list(tmp_path.iterdir())) <= 4  # two that stay, one that is about to go, one that is being written
