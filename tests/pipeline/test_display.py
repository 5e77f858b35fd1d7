import io
import json
import warnings

import pytest
from rich.console import Console

from nst_ops.engines.base import Step
from pipeline.cli import display
from pipeline.cli.display import PairDisplay, RunDisplay
from pipeline.machine import messages


@pytest.fixture
def clock(monkeypatch):
    """Jumps as far as a test says."""

    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(display.time, "monotonic", clock.monotonic)
    return clock


def plain(text):
    return Console(file=text, soft_wrap=True, markup=False, emoji=False)


def progress(**changes):
    counts = {"ok": 0, "cached": 0, "failed": 0, "deferred": 0, "now": []}
    return counts | changes


def test_log_lines_tell_speed_and_what_is_left(clock):
    text = io.StringIO()
    with RunDisplay(plain(text), 110) as shown:
        clock.now += 5.0
        shown.show(progress(ok=1))  # too early for another line
        clock.now += 3595.0
        shown.show(progress(ok=30, failed=20, cached=50, now=["a: step 1"]))
    assert text.getvalue() == (
        "100/110: 30 ok, 50 cached, 20 failed, 0 deferred; 30 an hour, 0:20:00 left; a: step 1\n"
    )


def test_json_lines(clock, capsys):
    text = io.StringIO()
    with RunDisplay(plain(text), 8, as_json=True) as shown:
        shown.note("[1/2] begins", "begin", run_id="x")
        clock.now += 100.0
        shown.show(progress(ok=4, failed=9, now=["[/a] :cat:"]))  # counted twice after a restart
        shown.note("[bold]text")
        shown.complain("failed: line 3: gone", "failed", line=3)
    begin, line, note = map(json.loads, text.getvalue().splitlines())
    problem = json.loads(capsys.readouterr().err)
    assert (problem["event"], problem["line"]) == ("failed", 3)
    assert (begin["event"], begin["run_id"]) == ("begin", "x")
    assert (line["event"], line["ok"], line["rows"], line["now"]) == (
        "progress",
        4,
        8,
        ["[/a] :cat:"],
    )
    assert (line["pictures_per_hour"], line["seconds_left"]) == (144.0, 0)
    assert (note["event"], note["text"]) == ("note", "[bold]text")


FORGED = "a\nfailed: \x1b[2K\x9b1m\r\u202eb\x85\u2028\x7f\udcff"
SHOWN = r"a\nfailed: \x1b[2K\x9b1m\r\u202eb\x85\u2028\x7f\udcff"


def test_names_forge_no_lines(clock, capsys):
    text = io.StringIO()
    with RunDisplay(plain(text), 8) as shown:
        shown.note(FORGED)
        clock.now += 100.0
        shown.show(progress(now=[FORGED]))
        shown.complain(f"failed: {FORGED}")
    note, line = text.getvalue().splitlines()
    assert note == SHOWN and line.endswith(f"; {SHOWN}")
    assert capsys.readouterr().err == f"failed: {SHOWN}\n"
    terminal = Console(file=io.StringIO(), force_terminal=True, markup=False, width=500)
    with RunDisplay(terminal, 8) as shown:
        shown.show(progress(now=[FORGED]))
        assert shown.bar.tasks[0].description == SHOWN


def test_errors_of_many_lines_are_indented():
    assert messages.indented("a\r\nfailed: b\x1b") == "a\n  failed: b\\x1b"


def test_json_escapes_all_that_is_not_printed():
    (line,) = messages.json_line("note", {"text": FORGED}).splitlines()
    assert line.isascii() and line.isprintable() and json.loads(line)["text"] == FORGED


def test_warnings_are_printed_as_all_else(monkeypatch, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        messages.tell_warnings()
        warnings.warn(f"{FORGED}; set aside", stacklevel=1)
        assert capsys.readouterr().err == f"warning: {SHOWN}; set aside\n"
        monkeypatch.setenv("NST_LOG_FORMAT", "json")
        warnings.warn(FORGED, stacklevel=1)
    said = json.loads(capsys.readouterr().err)
    assert (said["event"], said["text"]) == ("warning", FORGED)


def test_a_picture_of_hours_is_heard_of(clock):
    text = io.StringIO()
    with PairDisplay(plain(text)) as shown:
        clock.now += 30.0
        shown.show(Step("step 1/4", 30.0, 0.25))
        clock.now += 50.0
        shown.show(Step("step 2/4", 50.0, 0.5))
        clock.now += 40.0
        shown.show(Step("step 3/4", 40.0, 1.0, "all of it: 3 steps"))
    assert text.getvalue().splitlines() == [
        "step 2/4, about 0:01:20 left",
        "all of it: 3 steps",
    ]


def test_a_terminal_shows_how_far_a_picture_is(clock):
    terminal = Console(file=io.StringIO(), force_terminal=True, markup=False, width=200)
    with PairDisplay(terminal) as shown:
        clock.now += 30.0
        shown.show(Step(f"{FORGED} step 1/4", 30.0, 0.25))
        (task,) = shown.bar.tasks
        assert task.description == f"{SHOWN} step 1/4, about 0:01:30 left"
        assert task.percentage == 25.0
