"""The DAG in a real Airflow, in an environment of its own, with nst itself as its commands."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..conftest import IMAGES

pytestmark = pytest.mark.slow

DAGS = Path(__file__).parent.parent.parent / "deploy" / "airflow"
VERSION = "3.3.2"
PARSE = """
import json
from airflow.dag_processing.dagbag import DagBag

bag = DagBag({folder!r})
dag = bag.dags.get("nst_nightly")
facts = {{"errors": {{str(path): error for path, error in bag.import_errors.items()}}}}
if dag:
    facts |= {{
        "tasks": [task.task_id for task in dag.topological_sort()],
        "after": {{task.task_id: sorted(task.downstream_task_ids) for task in dag.tasks}},
        "skips": {{task.task_id: list(task.skip_on_exit_code) for task in dag.tasks}},
        "retries": {{task.task_id: task.retries for task in dag.tasks}},
        "active": dag.max_active_runs,
        "catchup": dag.catchup,
    }}
print("FACTS" + json.dumps(facts))
"""
STATES = """
import json
from airflow.models.taskinstance import TaskInstance
from airflow.settings import Session

print("FACTS" + json.dumps({t.task_id: str(t.state) for t in Session().query(TaskInstance)}))
"""


@pytest.fixture(scope="module")
def airflow(tmp_path_factory):
    """Runs Airflow's Python or its command; returns what it printed."""
    environment = Path.home() / ".cache" / "nst-airflow" / VERSION
    done = environment / "installed"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True)
        install = [environment / "bin/pip", "install", "-q", f"apache-airflow=={VERSION}"]
        subprocess.run(install, check=True)
        done.touch()
    folder = tmp_path_factory.mktemp("airflow")
    # `nst` is found where the tests' own Python is.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    variables = {
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW_VAR_NST_FOLDER": str(folder / "collection"),
        "PATH": path,
        "PYTHONDONTWRITEBYTECODE": "1",
    }

    def run(program, *arguments):
        command = [environment / "bin" / program, *arguments]
        told = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)
        assert told.returncode == 0, told.stdout[-5000:] + told.stderr[-5000:]
        return told.stdout

    run.folder = folder / "collection"
    return run


def facts(printed):
    (line,) = [line for line in printed.splitlines() if line.startswith("FACTS")]
    return json.loads(line.removeprefix("FACTS"))


def test_dag_is_parsed(airflow):
    found = facts(airflow("python", "-c", PARSE.format(folder=str(DAGS))))
    assert found["errors"] == {}
    assert found["tasks"] == ["validate", "run", "report"]
    assert found["after"] == {"validate": ["run"], "run": ["report"], "report": []}
    assert found["skips"]["validate"] == [2] and found["skips"]["run"] == [3]
    assert found["retries"] == {"validate": 0, "run": 1, "report": 0}
    assert (found["active"], found["catchup"]) == (1, False)


def test_a_night_with_one_bad_photo(airflow):
    airflow.folder.mkdir()
    (airflow.folder / "config.yaml").write_text("size: 64\nsteps: 2\nprecision: float32\n")
    with (airflow.folder / "manifest.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["content", "style"])
        rows.writerow([IMAGES / "rocket.jpg", IMAGES / "cat.jpg"])
        rows.writerow(["gone.jpg", IMAGES / "cat.jpg"])
    airflow("airflow", "db", "migrate")
    airflow("airflow", "dags", "test", "nst_nightly")
    states = facts(airflow("python", "-c", STATES))
    assert states == {"validate": "skipped", "run": "skipped", "report": "success"}
    (record,) = (airflow.folder / "out/runs").iterdir()
    summary = json.loads((record / "summary.json").read_text())
    assert (summary["ok"], summary["failed"]) == (1, 1)
    assert (record / "report.html").exists()
