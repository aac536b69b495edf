"""What is written can be read by anybody, and what is shown fits where it is shown."""

import contextlib
import io
import json
import math
import os
import re
import sys
import threading

import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_lite.log.progress import Progress
from jaxopt_lite.log.records import JsonLines, hold, plain, read_json, versions, write_json
from jaxopt_lite.log.scoreboard import Scoreboard
from jaxopt_lite.sweeps.ledger import DIVERGED, FAILED, FINISHED, RUNNING, STOPPED
from tests.report.ledgers import ledger


def strict(text):
    """JSON as the standard has it: without NaN and infinities."""

    def refuse(word):
        raise AssertionError(word)

    return json.loads(text, parse_constant=refuse)


def test_values_become_plain():
    given = {"a": np.float32(0.5), 3: (jnp.arange(2), np.int64(7)), "c": [np.array([np.nan, 1.0]), math.inf], "d": None}
    assert plain(given) == {"a": 0.5, "3": [[0, 1], 7], "c": [[None, 1.0], None], "d": None}


def test_rows_are_there_as_soon_as_they_are_written(tmp_path):
    rows = JsonLines(tmp_path / "metrics.jsonl")
    for step in (1, 2):
        rows.write({"step": step, "loss": np.array([np.nan, 0.5], np.float32)})
        lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
        assert strict(lines[-1]) == {"step": step, "loss": [None, 0.5]} and len(lines) == step
    rows.close()


@pytest.mark.parametrize(
    "left", ["", '{"a": 1}\n', '{"a": 1}\n{"a": ', '{"a": 1}\n{"a": 2}', '{"a": 1}\n{"a": "\\u00', "\n"]
)
def test_a_torn_line_takes_no_other_with_it(tmp_path, left):
    (tmp_path / "events.jsonl").write_text(left)
    for new in (3, 4):
        rows = JsonLines(tmp_path / "events.jsonl", append=True)
        rows.write({"a": new})
        rows.close()
    text = (tmp_path / "events.jsonl").read_text()
    assert text.startswith(left) and text.endswith("\n")
    assert [strict(line) for line in text.splitlines()[-2:]] == [{"a": 3}, {"a": 4}]
    assert "" not in text.removeprefix(left).strip().splitlines()


def test_a_file_is_held_by_one_at_a_time(tmp_path):
    path = tmp_path / "events.jsonl"
    with path.open("a") as first:
        assert hold(first)
        with path.open("a") as second:
            assert not hold(second)
        assert path.read_text() == "", "it can be read"
    with path.open("a") as third:
        assert hold(third), "closing it lets it go"


DAMAGED = {
    "": "Expecting value",
    "{": "Expecting property name",
    "\0\0\0": "Expecting value",
    "[1]": r"it must be dict, got \[1\]",
    "null": "it must be dict, got null",
    "{}": "it has no 'a'",
    '{"a": "1", "b": {"c": []}}': "'a' must be int or null, got \"1\"",
    '{"a": 1, "b": 2}': "'b' must be dict, got 2",
    '{"a": 1, "b": {}}': "'b' has no 'c'",
    '{"a": 1, "b": {"c": null}}': "'c' must be list, got null",
    "[" * 100_000: "recursion|damaged",
}


def test_a_damaged_file_is_named_with_what_is_wrong_and_what_to_do(tmp_path):
    path, shape = tmp_path / "about.json", {"a": (int, type(None)), "b": {"c": list}}
    for text, wrong in DAMAGED.items():
        path.write_text(text)
        with pytest.raises(ValueError, match=rf"about.json is damaged: .*({wrong}).*; begin anew"):
            read_json(path, shape, "begin anew")
    path.write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(ValueError, match="is damaged"):
        read_json(path, shape, "begin anew")
    write_json(path, {"a": None, "b": {"c": []}, "more": 1})
    assert read_json(path, shape, "") == {"a": None, "b": {"c": []}, "more": 1}


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "summary.json"
    write_json(path, {"loss": math.nan})
    with pytest.raises(TypeError):
        write_json(path, {"loss": object()})
    assert strict(path.read_text()) == {"loss": None}
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]


def test_versions_are_texts():
    assert versions().keys() == {"python", "jax", "backend", "device", "cpus"}
    assert all(isinstance(text, str) for text in versions().values())


METRICS = {"train.loss": np.float32(0.25), "valid.accuracy": np.array([0.5, 1.0, np.nan]), "grad_norm": np.float32(1)}


def test_lines_name_the_step_and_the_scores(capsys):
    progress = Progress(100, "lines")
    progress.update(10, METRICS)
    progress.close()
    shown = capsys.readouterr()
    assert shown.err == "step 10/100  train.loss 0.25  valid.accuracy 0.75\n" and not shown.out


def test_lines_are_few_and_end_with_the_last(capsys):
    progress = Progress(100, "lines")
    for step in range(10, 60, 10):
        progress.update(step, METRICS)
    progress.close()
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("step 10/100") and last.startswith("step 50/100")
    assert re.search(r"  [\d,]+ steps/s  \d:\d\d:\d\d left  train.loss", last)


def test_the_last_line_has_no_time_left(capsys):
    progress = Progress(20, "lines")
    progress.update(10, METRICS)
    progress.update(20, METRICS)
    progress.close()
    assert "left" not in capsys.readouterr().err.splitlines()[-1]


def test_what_is_not_finite_is_not_shown(capsys):
    progress = Progress(20, "lines")
    progress.update(20, {"train.loss": np.float32(np.nan), "valid.loss": np.array([np.nan, np.inf])})
    progress.close()
    assert capsys.readouterr().err.strip() == "step 20/20"


def test_nothing_is_shown_when_nothing_is_wanted(capsys):
    progress = Progress(10, "none")
    progress.update(10, METRICS)
    progress.close()
    assert capsys.readouterr() == ("", "")


def test_elsewhere_than_on_a_terminal_there_are_lines(capsys):
    progress = Progress(10)
    progress.update(10, METRICS)
    progress.close()
    assert capsys.readouterr().err.startswith("step 10/10")


def test_without_rich_there_are_lines(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    progress = Progress(10, "bar")
    progress.update(10, METRICS)
    progress.close()
    assert capsys.readouterr().err.startswith("step 10/10")


class Gone(io.StringIO):
    def write(self, text):
        raise BrokenPipeError


class Notebook:
    """One that has lost its kernel: it has only what `print` needs."""

    def write(self, text):
        raise RuntimeError("the kernel is gone")


@pytest.mark.parametrize("screen", [None, Gone, Notebook, "closed"], ids=str)
@pytest.mark.parametrize("show", [None, "lines", "bar"])
def test_a_terminal_that_is_gone_ends_the_progress_alone(screen, show, monkeypatch, capfd):
    stream = screen if screen is None else io.StringIO() if screen == "closed" else screen()
    if screen == "closed":
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    progress = Progress(20, show)
    for step in (10, 20):
        progress.update(step, METRICS)
    progress.close()
    print("as before")
    assert capfd.readouterr().out == "as before\n"


@contextlib.contextmanager
def terminal(width):
    """A terminal in place of standard error, and what it was sent."""
    if not hasattr(os, "openpty"):
        pytest.skip("this system has no pseudo-terminals")
    sent, (master, slave) = [], os.openpty()

    def read():
        with contextlib.suppress(OSError):
            while chunk := os.read(master, 4096):
                sent.append(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with os.fdopen(slave, "w") as screen, pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stderr", screen)
            patch.setenv("TERM", "xterm")
            patch.setenv("COLUMNS", str(width))
            yield sent
    finally:
        reader.join()
        os.close(master)


@pytest.mark.parametrize("width, shown", [(120, ["steps/s", "train.loss 0.25", "valid.accuracy 0.75"]), (50, [])])
def test_on_a_terminal_there_is_a_bar_of_one_line(width, shown):
    pytest.importorskip("rich")
    with terminal(width) as sent:
        progress = Progress(100)
        progress.update(40, METRICS)
        progress.update(100, METRICS)
        progress.close()
    text = b"".join(sent).decode()
    lines = [re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", line).rstrip() for line in re.split(r"\r\x1b\[2K|\r\n", text)]
    assert lines[0].endswith("0/100 compiling") and max(map(len, lines)) < width
    last = [line for line in lines if "100/100" in line][-1]
    assert all(words in last for words in shown) and ("train.loss" in last) == bool(shown)
    assert text.count("\r\n") == 1, "one line, written again and again"
    assert text.rstrip().endswith("\x1b[?25h"), "the cursor is shown again"


# Of a sweep ----------------------------------------------------------------------------------------------------------


def board_of(steps, statuses=(), trials=None):
    """What is shown after one call of 10 steps, and then of all steps that the ledger has: the last line."""
    made = ledger(len(steps))
    made.status[:] = RUNNING
    made.status[: len(statuses)] = statuses
    for at in (np.minimum(10, steps), np.array(steps)):
        made.step[:] = at
        yield made, len(steps) if trials is None else trials


def last_line(capsys, board, states, member_steps=40):
    for made, trials in states:
        board.advanced(made, trials, member_steps)
    board.close()
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("show", [None, "lines", "bar"])
def test_a_terminal_that_is_gone_ends_the_board_alone(show, monkeypatch, capfd):
    for screen in (None, Gone(), Notebook()):
        monkeypatch.setattr(sys, "stderr", screen)
        board = Scoreboard(show)
        board.print("3 trials")
        for made, trials in board_of([20, 20, 20]):
            board.advanced(made, trials, 40)
        board.close()
    print("as before")
    assert capfd.readouterr().out == "as before\n"


def test_the_progress_of_a_sweep_is_in_steps_before_the_first_trial_ends(capsys):
    line = last_line(capsys, Scoreboard("lines"), board_of([20, 20, 20, 10]))
    assert line.startswith("0/4 trials  70/120 steps  0.0 trials/s  ")
    assert re.search(r"member-steps/s  \d+:\d\d:\d\d left", line)


def test_steps_that_nobody_will_do_are_not_counted(capsys):
    line = last_line(capsys, Scoreboard("lines"), board_of([10, 20, 30, 0], [STOPPED, DIVERGED, FINISHED, FAILED]))
    assert line.startswith("4/4 trials  60/60 steps  ") and " left" not in line
    line = last_line(capsys, Scoreboard("lines"), board_of([30, 10], [FINISHED], trials=4))
    assert line.startswith("1/4 trials  40/120 steps  ") and " left" in line


def test_a_bar_of_a_sweep_fills_by_steps():
    pytest.importorskip("rich")
    with terminal(160) as sent:
        board = Scoreboard()
        for made, trials in board_of([20, 20, 20, 10]):
            board.advanced(made, trials, 40)
        board.close()
    text = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", b"".join(sent).decode())
    assert "70/120 steps" in text and text.count("\N{BOX DRAWINGS HEAVY HORIZONTAL}") > 0
