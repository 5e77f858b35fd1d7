"""Ten minutes in which processes of runs are killed, stopped and starved at random: nothing is
lost, nothing is made twice, and there is a record and a notification every time.
"""

import http.server
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow.parquet
import pytest

from nst_ops.images.codec import decode

from .conftest import write_manifest

SECONDS = 600.0
PICTURES = 24
SETTINGS = ("size=64", "steps=40", "precision=float32", "batch_size=1", "parallelism=2")
# What befalls a process: gone; stopped for ever; stopped for some seconds.
FATES = ("kill", "kill", "kill", "stop", "starve", "starve")
MOST_STOPS = 1  # of the night: each is waited for two minutes


@pytest.fixture
def listener():
    """Where summaries are posted, and what came."""
    posted = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):  # noqa: N802  # http.server's name
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", posted
    server.shutdown()


def processes_of(pid):
    """A process and all that it has started."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = {child for task in tasks for child in (task / "children").read_text().split()}
    except OSError:
        return []
    return [pid, *(each for child in children for each in processes_of(int(child)))]


def befall(chance, fate, launcher):
    """Something happens to a process of the run; returns whether to its launcher."""
    alive = processes_of(launcher.pid)
    victims = alive if fate == "kill" else alive[1:]
    if not victims:
        return False
    victim = chance.choice(victims)
    sent = {"kill": signal.SIGKILL}.get(fate, signal.SIGSTOP)
    try:
        os.kill(victim, sent)
        if fate == "starve":
            time.sleep(chance.uniform(1.0, 8.0))
            os.kill(victim, signal.SIGCONT)
    except ProcessLookupError:
        return False
    return fate == "kill" and victim == launcher.pid


@pytest.mark.slow
def test_a_night_of_random_misfortune(tmp_path, listener):
    url, posted = listener
    names = ["rocket", "cat", "coffee", "astronaut"] * (PICTURES // 4)
    ids = [f"p{index}" for index in range(PICTURES)]
    manifest = write_manifest(tmp_path / "m.csv", names, id=ids)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "pipeline", "run", "--quiet", "--manifest", str(manifest)]
    command += ["--output", str(out), "--set", f"notify_url={url}"]
    command += [word for setting in SETTINGS for word in ("--set", setting)]
    chance = random.Random(0)
    first_seen, misfortunes, stops, runs, made, seed = {}, 0, 0, 0, 0, 0
    command += ["--set", f"seed={seed}", "--set", "init=noise"]
    since = 0
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        fates = list(FATES if stops < MOST_STOPS else FATES[:3] + FATES[4:])
        before, killed = len(posted), False
        hours = [] if stops else ["--max_hours", "0.02"]
        with subprocess.Popen([*command, *hours], stderr=subprocess.DEVNULL) as launcher:
            runs += 1
            for _ in range(chance.randrange(1, 10)):
                time.sleep(chance.uniform(0.0, 12.0))
                if launcher.poll() is not None:
                    break
                fate = chance.choice(fates)
                stops += fate == "stop"
                misfortunes += 1
                killed = befall(chance, fate, launcher)
                if killed or fate == "stop":
                    break
            # Whatever befell it, it ends.
            launcher.wait(timeout=420)
        if not killed:
            assert launcher.returncode in (0, 1, 3, 4), launcher.returncode
            assert len(posted) == before + 1, "no notification"
            record = out / "runs" / posted[-1]["run_id"] / "summary.json"
            assert json.loads(record.read_text())["run_id"] == posted[-1]["run_id"]
        for path in (out / "images").glob("*.png"):
            decode(path.read_bytes())
            if path.stat().st_mtime_ns > since:
                first_seen.setdefault(path.name, path.stat().st_mtime_ns)
        if len(first_seen) == PICTURES:  # on with the night
            check_night(out, first_seen)
            made += PICTURES
            command[command.index(f"seed={seed}")] = f"seed={seed + 1}"  # all anew
            seed += 1
            first_seen, since = {}, time.time_ns()
    for _ in range(3):  # peace; a picture that two workers died over is tried again
        done = subprocess.run(command, stderr=subprocess.DEVNULL)
    assert done.returncode == 0
    check_night(out, first_seen)
    last = max((out / "metadata").iterdir())
    rows = pyarrow.parquet.read_table(last).to_pylist()
    assert sorted(row["manifest_line"] for row in rows) == list(range(2, PICTURES + 2))
    assert {row["status"] for row in rows} == {"cached"}
    assert len(list((out / "runs").glob("*/summary.json"))) == len(list((out / "runs").iterdir()))
    made += PICTURES
    print(f"{runs} runs, {made} pictures, {misfortunes} misfortunes, {stops} of them for ever")
    assert misfortunes >= 5


def check_night(out, first_seen):
    """Nothing was made twice."""
    for name, when in first_seen.items():
        assert (out / "images" / name).stat().st_mtime_ns == when, f"{name} was made twice"
