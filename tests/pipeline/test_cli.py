"""The command line as a user runs it, with real photos, paintings, weights and the real engine."""

import contextlib
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios
import time

import pyarrow.parquet
import pytest
from PIL import Image

from nst_ops.images.codec import decode, probe
from pipeline.machine.messages import printable

from ..conftest import IMAGES

SMALL = ["--set", "size=64", "--set", "steps=3", "--set", "precision=float32"]


def nst(*arguments, cwd=None):
    command = [sys.executable, "-m", "pipeline.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300)


def rows_of(folder, run_id):
    table = pyarrow.parquet.read_table(folder / "metadata" / f"run_id={run_id}")
    return sorted(table.to_pylist(), key=lambda row: row["manifest_line"])


def summaries(folder):
    files = sorted((folder / "runs").glob("*/summary.json"), key=lambda path: path.stat().st_mtime)
    return [json.loads(file.read_text()) for file in files]


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """A manifest of two good rows and one of every kind of bad row."""
    folder = tmp_path_factory.mktemp("collection")
    for name in ("rocket", "cat", "cafe_terrace_at_night"):
        shutil.copy(IMAGES / f"{name}.jpg", folder)
    (folder / "broken.jpg").write_bytes((folder / "cat.jpg").read_bytes()[:3000])
    (folder / "page.jpg").write_text("<html>not found</html>")
    Image.new("RGB", (300, 8)).save(folder / "thin.png")
    (folder / "manifest.csv").write_text(
        "content,style,output,color\n"
        "rocket.jpg,cafe_terrace_at_night.jpg,deep/er/rocket,\n"
        "cat.jpg,cafe_terrace_at_night.jpg,,content\n"
        "gone.jpg,cafe_terrace_at_night.jpg,,\n"
        "broken.jpg,cafe_terrace_at_night.jpg,,\n"
        "page.jpg,cafe_terrace_at_night.jpg,,\n"
        "thin.png,cafe_terrace_at_night.jpg,,\n"
        "cat.jpg,gone.jpg,,\n"
        "cat.jpg,cafe_terrace_at_night.jpg,purple,purple\n"
    )
    # A batch for each of two workers, and a row that needs none.
    (folder / "two.csv").write_text(
        "content,style,output\n"
        "rocket.jpg,cafe_terrace_at_night.jpg,\n"
        "cat.jpg,cafe_terrace_at_night.jpg,\n"
        "gone.jpg,cafe_terrace_at_night.jpg,\n"
    )
    return folder


def test_run_again_and_change(collection, tmp_path):
    command = ["run", "--manifest", collection / "manifest.csv", "--output", tmp_path, *SMALL]
    first = nst(*command)
    assert first.returncode == 3, first.stderr
    (summary,) = summaries(tmp_path)
    assert (summary["ok"], summary["failed"]) == (2, 6)
    rows = rows_of(tmp_path, summary["run_id"])
    assert [row["status"] for row in rows] == ["ok", "ok"] + ["failed"] * 6
    reasons = ["gone.jpg", "broken.jpg", "page.jpg", "thin.png", "gone.jpg", "color: 'purple'"]
    for row, reason in zip(rows[2:], reasons, strict=True):
        assert reason in row["error_message"] and row["error_type"] and row["error_code"]
        said = f"failed: line {row['manifest_line']}: {printable(row['error_message'])}"
        assert said in first.stderr.splitlines()
    whole = pyarrow.parquet.read_table(tmp_path / "metadata")  # of all runs, as pandas reads it
    assert set(whole["run_id"].to_pylist()) == {summary["run_id"]}
    good = rows[0]
    assert good["loss_last"] < good["loss_first"]
    assert good["loss_last"] == pytest.approx(
        sum(good[f"loss_{term}"] for term in ("content", "style", "tv", "attention")), rel=1e-4
    )
    assert good["scales"][0]["stop_reason"] == "steps"
    assert len(good["loss_curve"]) == 3
    picture = tmp_path / "images/deep/er/rocket.png"
    header = probe(picture.read_bytes())
    assert header.size == (good["height"], good["width"]) == (43, 64)
    assert header.provenance["spec_hash"] == good["spec_hash"]
    assert [path.name for path in (tmp_path / "work").glob("*")] == ["files.sqlite"]

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "images").rglob("*.png")}
    assert len(before) == 2
    nst(*command)
    assert (summaries(tmp_path)[-1]["cached"], summaries(tmp_path)[-1]["ok"]) == (2, 0)
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "images").rglob("*.png")}

    nst(*command, "--set", "tv_weight=50")
    assert summaries(tmp_path)[-1]["ok"] == 2
    shutil.copy(collection / "cat.jpg", collection / "rocket.jpg")  # another photo, same name
    nst(*command, "--set", "tv_weight=50")
    assert (summaries(tmp_path)[-1]["cached"], summaries(tmp_path)[-1]["ok"]) == (1, 1)


def test_stylize_blends_and_repeats(tmp_path):
    images = [IMAGES / f"{name}.jpg" for name in ("coffee", "pere_tanguy", "church_at_auvers")]
    outputs = []
    for name in ("a.webp", "b.webp"):
        done = nst("stylize", images[0], f"{images[1]}=2", images[2], "-o", tmp_path / name, *SMALL)
        assert done.returncode == 0, done.stderr
        assert "oneDNN" not in done.stderr and "WARNING" not in done.stderr
        outputs.append((tmp_path / name).read_bytes())
    assert outputs[0] == outputs[1]
    assert [style["weight"] for style in probe(outputs[0]).provenance["styles"]] == [2.0, 1.0]


def test_alpha_comes_back(tmp_path):
    photo = Image.open(IMAGES / "coffee.jpg").convert("RGBA")
    photo.putalpha(Image.radial_gradient("L").resize(photo.size))
    photo.save(tmp_path / "photo.png")
    done = nst(
        "stylize", "photo.png", IMAGES / "pere_tanguy.jpg", "-o", "out.png", *SMALL, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "out.png").mode == "RGBA"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--manifest", "gone.csv", "--output", "o"], "gone.csv: cannot be read"),
        (["run", "--config", "gone.yaml", "--manifest", "m", "--output", "o"], "gone.yaml"),
        (["stylize", "a.jpg", "b.jpg", "-o", "x.bmp"], "'.bmp'; use .png"),
        (["stylize", "a.jpg", "b.jpg", "-o", "x.png"], "a.jpg: cannot be read"),
        (["stylize", "a.jpg", "b.jpg=-1", "-o", "x.png"], "must be a number above 0"),
        (["manifest", "--content", "no*", "--style", "no*", "-o", "m.csv"], "matches no file"),
        (["stylize", "a.jpg", "b.jpg", "-o", "x.png", "--frobnicate"], "unknown arguments"),
        (["run", "--manifest", "m.csv", "--output", "o", "--set", "sise=3"], "did you mean 'size'"),
        (["stylize", "a.jpg", "b.jpg=nan", "-o", "x.png"], "must be a number above 0"),
        (["stylize", "a.jpg", "b=c.jpg", "-o", "x.png"], "a.jpg: cannot be read"),
    ],
)
def test_bad_arguments_exit_2_and_start_nothing(tmp_path, arguments, message):
    done = nst(*arguments, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--manifest", "gone.csv"], "gone.csv: cannot be read"),
        (
            ["--manifest", "m.csv", "--set", "sise=3", "--set", "seed=x"],
            "\n--set: unknown key 'sise'",
        ),
        (["--manifest", "m.csv", "--config", "a\nb.yaml"], "a\nb.yaml: No such file"),
        (["--manifest", "m.csv", "--runner=Nonsense"], "Nonsense"),
    ],
)
def test_fatal_errors_are_json_too(tmp_path, extra, message):
    (tmp_path / "m.csv").write_text("content,style\na.jpg,b.jpg\n")
    done = nst("run", "--output", "o", "--log_format", "json", *extra, cwd=tmp_path)
    assert done.returncode == 2
    *begin, error = map(json.loads, done.stderr.splitlines())
    assert [event["event"] for event in begin] == ["begin"] * ("--runner" in extra[-1])
    assert error["event"] == "error" and message in error["message"] and error["time"]
    assert error["exit_code"] == 2


def test_a_run_that_most_rows_fail_of_ends_with_its_end(tmp_path):
    (tmp_path / "m.csv").write_text("content,style\na\u2028.jpg,b.jpg\n")
    command = ["run", "--manifest", "m.csv", "--output", "o", "--set", "max_failure_ratio=0.1"]
    damaged = tmp_path / "o/runs/20200101T000000Z-abcdef/run.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{")
    done = nst(*command, "--log_format", "json", cwd=tmp_path)
    assert done.returncode == 1
    events = [json.loads(line) for line in done.stderr.splitlines()]
    kinds = [event["event"] for event in events if event["event"] not in ("progress", "warning")]
    assert kinds == ["begin", "failed", "error", "end"]
    assert any("run.json.damaged" in event.get("text", "") for event in events)
    (error,) = (event for event in events if event["event"] == "error")
    assert error["exit_code"] == 1 and "max_failure_ratio" in error["message"]


def test_names_forge_no_lines(tmp_path):
    (tmp_path / "m.csv").write_text("style,content\n" + '"a\nok \x1b[31m.jpg",' * 2 + "\n")
    done = nst("validate", "--manifest", "m.csv", cwd=tmp_path)
    assert r"/a\nok \x1b[31m.jpg: cannot be read" in done.stdout
    done = nst("run", "--manifest", "m.csv", "--output", "o", cwd=tmp_path)
    assert done.returncode == 3 and r"/a\nok \x1b[31m.jpg: cannot be read" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("0 ok, 0 cached, 1 failed")
    done = nst("report", "x\nnst: y\x9b", cwd=tmp_path)
    assert done.returncode == 2 and r"/x\nnst: y\x9b: no run" in done.stderr
    done = nst("report", "x", "--a\nb", cwd=tmp_path)
    assert done.returncode == 2 and r"arguments: --a\nb" in done.stderr


def test_validate_names_all_rows_that_would_write_one_file(collection):
    row = "cat.jpg,cafe_terrace_at_night.jpg,"
    manifest = collection / "twice.csv"
    manifest.write_text("content,style,output\n" + "".join(f"{row}{name}\n" for name in "aaba"))
    done = nst("validate", "--manifest", manifest, *SMALL, "--speed", "none")
    assert done.returncode == 2 and "4 rows, 2 problems" in done.stdout, done.stderr
    assert "rows that cannot be used: 2\n  line 3: 'a.png' is written by line 2" in done.stdout
    assert "\n  line 5: 'a.png' is written by line 2" in done.stdout
    manifest.write_text("content,style\n")
    done = nst("validate", "--manifest", manifest)
    assert done.returncode == 2 and "no rows" in done.stderr


def test_validate_and_doctor(collection):
    done = nst("validate", "--manifest", collection / "manifest.csv", *SMALL, "--speed", "0.5")
    assert done.returncode == 2 and "8 rows, 5 problems" in done.stdout, done.stderr
    assert "photos that are no images: 1\n  line 6" in done.stdout
    assert "s a picture at a speed of 0.50" in done.stdout
    done = nst("doctor")
    assert done.returncode == 0 and "42200b99" in done.stdout and "auto is " in done.stdout


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--size=128"], "unknown arguments: --size=128"),
        (["word"], "unknown arguments: word"),
        (["--runner=Nonsense"], "Nonsense"),
        (["--set", "min_ram=banana"], "banana"),
        (["--set", "content_layers=[block5_conv3]"], "lack block5_conv3"),
    ],
)
def test_bad_options_of_a_run_start_nothing(collection, tmp_path, extra, message):
    done = nst("run", "--manifest", collection / "manifest.csv", "--output", tmp_path, *extra)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_first_picture_is_read_as_large_as_the_result(tmp_path):
    """Whatever the size of the painting."""
    Image.open(IMAGES / "pere_tanguy.jpg").resize((64, 80)).save(tmp_path / "small.png")
    pictures = []
    for name, init in (("a", "content"), ("b", IMAGES / "cat.jpg")):
        output = tmp_path / f"{name}.png"
        words = ["stylize", IMAGES / "cat.jpg", tmp_path / "small.png", "-o", output]
        words += ["--set", "size=160", "--set", f"init={init}", "--set", "attention_weight=0"]
        done = nst(*words, "--set", "scales=[{size: 160, steps: 1}]", "--set", "trim=off")
        assert done.returncode == 0, done.stderr
        pictures.append(decode(output.read_bytes()).pixels)
    assert abs(pictures[0] - pictures[1]).max() < 0.02


def test_stopped_in_order_and_taken_up_again(collection, tmp_path):
    arguments = ["run", "--manifest", str(collection / "manifest.csv"), "--output", str(tmp_path)]
    slow = ["--set", "steps=100000", "--set", "tolerance=0", "--set", "size=256"]
    command = [sys.executable, "-m", "pipeline", *arguments, *slow]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not any("step" in f.read_text() for f in tmp_path.glob("work/*.json")):
            assert process.poll() is None
            time.sleep(0.2)
        second = nst(*arguments, *SMALL)
        assert second.returncode == 2 and "is at work on this folder" in second.stderr
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 4 and "Traceback" not in errors, errors
    (summary,) = summaries(tmp_path)
    assert summary["deferred"] >= 1 and "SIGTERM" in summary["stopped"]
    rows = rows_of(tmp_path, summary["run_id"])
    assert len(rows) == 8 and "deferred" in {row["status"] for row in rows}
    assert not list(tmp_path.glob("runs/*/_SUCCESS"))
    nst(*arguments, *SMALL)
    assert summaries(tmp_path)[-1]["ok"] == 2


def two_slow_workers(collection, folder):
    """The arguments of a run that needs two workers, and a command that keeps them busy."""
    arguments = ["run", "--manifest", str(collection / "two.csv"), "--output", str(folder)]
    slow = "steps=5000", "tolerance=0", "size=64", "parallelism=2"
    given = [word for setting in slow for word in ("--set", setting)]
    return arguments, [sys.executable, "-m", "pipeline.cli.main", *arguments, *given]


def test_ctrl_c_reaches_all_processes_and_stops_them_in_order(collection, tmp_path):
    _, command = two_slow_workers(collection, tmp_path)
    with subprocess.Popen(
        [*command, "--log_format", "json"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        while sum("step" in f.read_text() for f in tmp_path.glob("work/*.json")) < 2:
            assert process.poll() is None
            time.sleep(0.2)
        os.killpg(process.pid, signal.SIGINT)
        _, log = process.communicate(timeout=60)
    assert process.returncode == 4, log
    events = [json.loads(line) for line in log.splitlines()]  # and there is nothing else
    kinds = [event["event"] for event in events if event["event"] not in ("progress", "failed")]
    assert kinds == ["begin", "stopping", "note", "end"]
    end = events[-1]
    assert end["deferred"] == 2 and "SIGINT" in end["stopped"]
    failed = [event["line"] for event in events if event["event"] == "failed"]
    assert len(failed) == end["failed"] and failed == sorted(failed)
    assert len(list(tmp_path.glob("work/checkpoints/*.npz"))) == 2


def test_a_run_goes_on_without_a_lost_worker(collection, tmp_path):
    """Beam alone would wait for it for ever."""
    arguments, command = two_slow_workers(collection, tmp_path)

    def at_work(but=()):
        while True:
            assert process.poll() is None
            names = [path.name for path in tmp_path.glob("work/*.making")]
            pids = {int(name.split("-")[2]) for name in names} - set(but)
            if len(pids) == 2:
                return sorted(pids)
            time.sleep(0.2)

    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        workers = at_work()
        os.kill(workers[0], signal.SIGKILL)
        at_work(but=workers)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 4
    assert "-9: killed, perhaps for its memory); going on without it" in errors
    assert "Traceback" not in errors
    assert nst(*arguments, *SMALL).returncode == 3
    assert ["SIGINT" in summary["stopped"] for summary in summaries(tmp_path)] == [True, False]


def test_killed_run_leaves_its_rows_and_its_lock(collection, tmp_path):
    """The journal of a run that died becomes its metadata, and its lock is taken over."""
    arguments = ["run", "--manifest", str(collection / "two.csv"), "--output", str(tmp_path)]
    slow = ["--set", "steps=150", "--set", "tolerance=0", "--set", "size=64"]
    command = [sys.executable, "-m", "pipeline", *arguments, *slow]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while not list(tmp_path.glob("work/*.rows")):
            assert process.poll() is None
            time.sleep(0.1)
        process.kill()
    done = nst(*arguments, *slow)
    assert done.returncode == 3, done.stderr
    rows = rows_of(tmp_path, summaries(tmp_path)[0]["run_id"])
    assert "ok" in {row["status"] for row in rows}
    assert summaries(tmp_path)[-1]["cached"] == [row["status"] for row in rows].count("ok")
    # What a cluster might still do of the dead run is told to stop.
    assert sorted(path.suffix for path in tmp_path.glob("work/*")) == [".sqlite", ".stop"]


def test_deadline_defers_what_it_leaves_no_time_for(collection, tmp_path):
    command = ["run", "--manifest", collection / "manifest.csv", "--output", tmp_path, *SMALL]
    done = nst(*command, "--max_hours", "0")
    assert done.returncode == 4, done.stderr
    (summary,) = summaries(tmp_path)
    # No file was read; but one row is none, with all the time in the world.
    assert (summary["deferred"], summary["failed"]) == (7, 1)
    assert summary["stopped"] == "the deadline has come"


def test_report_runs_and_merge(collection, tmp_path):
    done = nst("report", tmp_path)
    assert done.returncode == 2 and "no run has ended here" in done.stderr
    command = ["run", "--manifest", collection / "manifest.csv", "--output", tmp_path, *SMALL]
    nst(*command, "--shard", "1/2")
    nst(*command, "--shard", "2/2", "--max_failure_ratio", "1")
    done = nst("merge", tmp_path)
    assert done.returncode == 3 and "2 ok, 0 cached, 6 failed" in done.stderr
    listed = nst("runs", tmp_path).stdout.splitlines()
    assert len(listed) == 3 and "shard 1/2" in listed[0] and "2 ok, 6 failed" in listed[2]
    merged = listed[2].split()[0]
    report = tmp_path / "runs" / merged / "report.html"
    report.unlink()
    assert nst("report", tmp_path).returncode == 0 and report.exists()
    done = nst("report", tmp_path, "--run", "nonsense")
    assert done.returncode == 2 and merged in done.stderr


def test_truncated_result_is_made_again(collection, tmp_path):
    command = ["run", "--manifest", collection / "manifest.csv", "--output", tmp_path, *SMALL]
    nst(*command)
    picture = tmp_path / "images/deep/er/rocket.png"
    whole = picture.read_bytes()
    picture.write_bytes(whole[:-40])
    nst(*command)
    assert picture.read_bytes() == whole


def test_a_terminal_shows_a_live_bar(collection, tmp_path):
    """In a real pseudo-terminal: what is drawn over what, as a person sees it."""
    terminal, end = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 100))
    command = ["run", "--manifest", str(collection / "two.csv"), "--output", str(tmp_path)]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "24"}
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", *command, *map(str, SMALL)],
        stdout=end,
        stderr=end,
        env=environment,
    )
    os.close(end)
    drawn = b""
    with contextlib.suppress(OSError):  # the terminal's end is closed with the process
        while part := os.read(terminal, 65536):
            drawn += part
    os.close(terminal)
    text = drawn.decode()
    assert process.wait() == 3, text[-1000:]  # one of the rows is bad
    assert "3/3" in text and "━" in text and "\x1b[" in text  # a full bar, drawn in place
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "\n")
    assert "2 ok, 0 cached, 1 failed, 0 deferred" in plain
