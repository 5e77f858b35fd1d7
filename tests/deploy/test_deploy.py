"""What deploy/ says is true: its files parse, and nst takes every `nst` command in them."""

import ast
import base64
import bz2
import configparser
import contextlib
import importlib.util
import json
import re
import shlex
import shutil
import string
import subprocess
import sys
import zlib
from collections import Counter
from pathlib import Path

import pytest
import yaml
from apache_beam.portability.api import beam_runner_api_pb2

from pipeline.cli import main as nst
from pipeline.store.metadata import read_metadata

from ..pipeline.conftest import write_manifest
from ..shell_commands import ROOT, check_command, commands_in

DEPLOY = ROOT / "deploy"
MAIN = DEPLOY / "dataflow/main.py"
HINTS = "accelerator=type:nvidia-l4;count:1;install-nvidia-driver min_ram=24GB"


def commands_of(path):
    text = path.read_text()
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.keyword) and node.arg == "bash_command":
                parts = node.value.values
                literal = [p.value if isinstance(p, ast.Constant) else "7.5" for p in parts]
                yield from commands_in("".join(literal))
        return
    if path.suffix == ".service":
        variables = dict(
            line.split("=", 1)
            for line in (DEPLOY / "systemd/nst.env").read_text().splitlines()
            if line and not line.startswith("#")
        )
        text = string.Template(text).safe_substitute(variables)
    if path.suffix == ".yaml":
        text = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    yield from commands_in(text)
    if path.suffix == ".yaml":
        for container in containers(path):
            yield from commands_in(shlex.join(container.get("command", [])))


def documents(path):
    return list(yaml.safe_load_all(path.read_text()))


def pod(document):
    spec = document["spec"]
    while "template" not in spec:
        spec = spec["jobTemplate"]["spec"]
    return spec, spec["template"]["spec"]


def containers(path):
    for document in documents(path):
        if document["kind"] in ("CronJob", "Job", "Deployment"):
            yield from pod(document)[1]["containers"]


FILES = [path for path in sorted(DEPLOY.rglob("*")) if path.is_file() and path.suffix != ".pyc"]
COMMANDS = [(path.relative_to(DEPLOY), words) for path in FILES for words in commands_of(path)]


def test_commands_are_found():
    found = Counter((str(path), words[0]) for path, words in COMMANDS)
    assert found == {
        ("Dockerfile", "doctor"): 2,
        ("Dockerfile", "run"): 1,
        ("airflow/nst_nightly.py", "validate"): 1,
        ("airflow/nst_nightly.py", "run"): 1,
        ("airflow/nst_nightly.py", "runs"): 1,
        ("airflow/nst_nightly.py", "report"): 1,
        ("dataflow/README.md", "run"): 1,
        ("kubernetes/cronjob.yaml", "run"): 1,
        ("kubernetes/flink.yaml", "run"): 1,
        ("kubernetes/indexed-job.yaml", "run"): 1,
        ("kubernetes/indexed-job.yaml", "merge"): 1,
        ("slurm/array.sbatch", "run"): 1,
        ("slurm/array.sbatch", "merge"): 1,
        ("systemd/nst.service", "run"): 1,
    }


@pytest.mark.parametrize("path, words", COMMANDS, ids=lambda value: str(value)[:40])
def test_commands_are_valid(path, words):
    check_command(words)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_files_are_headed_and_fit_anywhere(path):
    text = path.read_text()
    if path.suffix not in (".json", ".env", ".dockerignore"):
        assert "nst" in text[:400]
    assert not re.search(r"/(work|tmp|root|home)/", text)


def test_kubernetes_nights_do_not_overlap():
    claim, cron = documents(DEPLOY / "kubernetes/cronjob.yaml")
    job, template = pod(cron)
    assert cron["spec"]["concurrencyPolicy"] == "Forbid"
    (container,) = template["containers"]
    (hours,) = [float(w[12:]) for w in container["command"] if w.startswith("--max_hours=")]
    rest = job["activeDeadlineSeconds"] - 3600 * hours
    assert rest > template["terminationGracePeriodSeconds"] >= 120
    (volume,) = template["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1


@pytest.mark.parametrize("name", ["cronjob", "indexed-job", "flink"])
def test_kubernetes_jobs_do_not_repeat_what_would_fail_again(name):
    for document in documents(DEPLOY / f"kubernetes/{name}.yaml"):
        if document["kind"] not in ("CronJob", "Job"):
            continue
        job, template = pod(document)
        assert template["restartPolicy"] == "Never"  # podFailurePolicy is refused without it
        stops = [rule for rule in job["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
        (codes,) = [rule["onExitCodes"] for rule in stops]
        assert {2, 3} <= set(codes["values"]) and not {1, 137} & set(codes["values"])
        assert codes["containerName"] in [c["name"] for c in template["containers"]]
        indexed = job.get("completionMode") == "Indexed"
        assert [rule["action"] for rule in stops] == ["FailIndex" if indexed else "FailJob"]
        # A step of the failed index is repeated by index, of other jobs by job.
        assert ("backoffLimitPerIndex" in job) == indexed and ("backoffLimit" in job) != indexed


def test_kubernetes_shards_are_as_many_as_indices():
    shards, merge = documents(DEPLOY / "kubernetes/indexed-job.yaml")
    job, template = pod(shards)
    assert job["completionMode"] == "Indexed"
    script = template["containers"][0]["command"][2]
    assert script.startswith("exec ") and "\n" not in script
    assert f'--shard "$((JOB_COMPLETION_INDEX + 1))/{job["completions"]}"' in script
    assert merge["spec"]["suspend"] is True


def test_flink_has_a_worker_pool_beside_each_task_manager():
    services, manager, workers, job = documents(DEPLOY / "kubernetes/flink.yaml")
    task_manager, pool = pod(workers)[1]["containers"]
    assert pool["args"] == ["--worker_pool"]
    command = pod(job)[1]["containers"][0]["command"]
    port = pool["ports"][0]["containerPort"]
    assert f"--environment_config=localhost:{port}" in command
    assert f"--parallelism={workers['spec']['replicas']}" in command
    images = {task_manager["image"], pod(manager)[1]["containers"][0]["image"]}
    (version,) = [word.split("=")[1] for word in command if word.startswith("--flink_version=")]
    assert images == {f"flink:{version}-java11"}
    assert "taskmanager.numberOfTaskSlots: 1\n" in task_manager["env"][0]["value"]


def unit(name):
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read_string((DEPLOY / "systemd" / name).read_text())
    return parser


def test_systemd_catches_up_and_stops_the_launcher_alone():
    timer, service = unit("nst.timer")["Timer"], unit("nst.service")["Service"]
    assert timer["Persistent"] == "true" and timer["OnCalendar"] == "*-*-* 22:00:00"
    assert service["KillMode"] == "mixed" and service["SuccessExitStatus"] == "3 4"
    assert service["ReadWritePaths"] in (DEPLOY / "systemd/nst.env").read_text()


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd")
def test_systemd_takes_the_units(tmp_path):
    for name in ("nst.service", "nst.timer"):
        text = (DEPLOY / "systemd" / name).read_text()
        # It wants the command to be there.
        (tmp_path / name).write_text(text.replace("/opt/nst/.venv/bin/nst", sys.executable))
    command = ["systemd-analyze", "verify", "--man=no", *map(str, tmp_path.iterdir())]
    told = subprocess.run(command, capture_output=True, text=True)
    assert (told.returncode, told.stderr) == (0, "")


def test_slurm_merges_only_what_is_done():
    text = (DEPLOY / "slurm/array.sbatch").read_text()
    subprocess.run(["bash", "-n", str(DEPLOY / "slurm/array.sbatch")], check=True)
    (count,) = re.findall(r"#SBATCH --array=1-(\d+)$", text, re.MULTILINE)
    assert f'--shard "$SLURM_ARRAY_TASK_ID/{count}"' in text
    assert "#SBATCH --signal=TERM@" in text and "--signal=B:" not in text
    assert "#SBATCH --requeue\n" in text and "--dependency=afterok:" in text


@pytest.mark.parametrize("code, ends, requeued", [(0, 0, ""), (1, 1, ""), (3, 0, ""), (4, 0, "7")])
def test_slurm_exit_codes(tmp_path, code, ends, requeued):
    for name, script in {
        "srun": f"exit {code}",
        "scontrol": f'[ "$1" = requeue ] && echo "$2" > {tmp_path}/requeued',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{script}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "7"}
    done = subprocess.run(["bash", str(DEPLOY / "slurm/array.sbatch")], env=environment)
    assert done.returncode == ends
    file = tmp_path / "requeued"
    assert (file.read_text().strip() if file.exists() else "") == requeued


def test_dockerfile_copies_what_is_there_and_not_ignored():
    text = (DEPLOY / "Dockerfile").read_text()
    allowed = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    copied = [words.split()[1] for words in re.findall(r"^COPY (?!--from).*$", text, re.M)]
    assert copied == ["configs", "examples", "deploy/dataflow/main.py"]
    packaged = ["setup.py", "pyproject.toml", "README.md", "LICENSE", "NOTICE"]
    for name in [*copied, *packaged, "nst_ops", "pipeline"]:
        assert (ROOT / name).exists() and f"!{name}" in allowed
    (extras,) = re.findall(r"'/src\[(.+)\]'", text)
    packaging = (ROOT / "setup.py").read_text()
    assert all(f'"{extra}": [' in packaging for extra in extras.split(","))
    (version,) = re.findall(r"^FROM apache/beam_python3.11_sdk:(\d+\.\d+)\.\d+$", text, re.M)
    assert f"apache-beam>={version}," in packaging


@pytest.fixture(scope="module")
def main():
    spec = importlib.util.spec_from_file_location("dataflow_main", MAIN)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def metadata():
    return json.loads((DEPLOY / "dataflow/metadata.json").read_text())["parameters"]


def test_template_asks_for_what_main_takes(main, metadata):
    assert sorted(parameter["name"] for parameter in metadata) == sorted(main.PARAMETERS)
    required = [parameter["name"] for parameter in metadata if not parameter.get("isOptional")]
    assert required == ["manifest", "output"]
    assert all(parameter["label"] and parameter["helpText"] for parameter in metadata)


@pytest.mark.parametrize(
    "name, good, bad",
    [
        ("manifest", ["gs://b/m.csv", "gs://b/c/m.parquet"], ["m.csv", "gs://b/m.txt", ""]),
        ("output", ["gs://b/out"], ["out", ""]),
        ("config", ["", "configs/default.yaml", "gs://b/c.yml"], ["c.json"]),
        ("max_hours", ["", "8", "7.5"], ["8h", "-1"]),
        ("retry_failed", ["", "true", "false"], ["no"]),
    ],
)
def test_template_refuses(metadata, name, good, bad):
    (pattern,) = next(p["regexes"] for p in metadata if p["name"] == name)
    assert all(re.search(pattern, text) for text in good)
    assert not any(re.search(pattern, text) for text in bad)


def test_template_parameters_are_options_of_run(main):
    given = ["--manifest=gs://b/m.csv", "--output=gs://b/out", "--config=configs/default.yaml"]
    given += ["--set=size=64 'octaves=[1, 1]'", "--max_hours=8", "--retry_failed=false"]
    words = main.arguments([*given, "--region=europe-west4", "--template_location=gs://b/t"])
    options, rest = nst._parser().parse_known_args(words)
    assert (options.command, options.manifest, options.output) == (
        "run",
        "gs://b/m.csv",
        "gs://b/out",
    )
    assert options.config == "configs/default.yaml" and options.max_hours == 8
    assert options.overrides == ["size=64", "octaves=[1, 1]"] and options.retry_failed is False
    assert rest == [
        "--runner=DataflowRunner",
        "--region=europe-west4",
        "--template_location=gs://b/t",
    ]


def test_template_parameters_left_empty_are_not_given(main):
    empty = [f"--{name}=" for name in ("config", "set", "max_hours", "retry_failed")]
    words = main.arguments(["--manifest=m.csv", "--output=out", *empty])
    assert words == ["run", "--manifest=m.csv", "--output=out", "--runner=DataflowRunner"]


def test_template_config_in_a_bucket(main, monkeypatch):
    monkeypatch.setattr(main.files, "read", lambda path: b"size: 128 # " + path.encode())
    words = main.arguments(["--manifest=m.csv", "--output=out", "--config=gs://b/c.yaml"])
    options, _ = nst._parser().parse_known_args(words)
    assert Path(options.config).read_text() == "size: 128 # gs://b/c.yaml"
    Path(options.config).unlink()


def test_template_makes_pictures(main, tmp_path):
    manifest = write_manifest(tmp_path / "manifest.csv", ["rocket", tmp_path / "gone.jpg"])
    given = [f"--manifest={manifest}", f"--output={tmp_path / 'out'}"]
    given += ["--set=precision=float32 size=64 steps=2 'octaves=[1]'"]
    main.start([*given, "--runner=FnApiRunner", "--direct_num_workers=1"])
    (folder,) = (tmp_path / "out/metadata").iterdir()
    rows = read_metadata(str(tmp_path / "out"), folder.name.removeprefix("run_id="), ["status"])
    assert sorted(rows["status"].to_pylist()) == ["failed", "ok"]
    assert len(list((tmp_path / "out/images").iterdir())) == 1


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """As main.py, started as a script, hands it to a runner."""
    folder = tmp_path_factory.mktemp("graph")
    manifest = write_manifest(folder / "manifest.csv", ["rocket", "cat"])
    script = (
        "import runpy, sys\n"
        "import apache_beam as beam\n"
        "out, main = sys.argv[1:3]\n"
        "def run(pipeline):\n"
        "    open(out, 'wb').write(pipeline.to_runner_api().SerializeToString())\n"
        "beam.Pipeline.run = run\n"
        "sys.argv = sys.argv[2:]\n"
        "runpy.run_path(main, run_name='__main__')\n"
    )
    given = [f"--manifest={manifest}", f"--output={folder / 'out'}", f"--set={HINTS}"]
    given += ["--runner=FnApiRunner", "--direct_num_workers=1"]
    command = [sys.executable, "-c", script, str(folder / "graph.pb"), str(MAIN), *given]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    return beam_runner_api_pb2.Pipeline.FromString((folder / "graph.pb").read_bytes())


def test_graph_has_its_stages(graph):
    transforms = graph.components.transforms
    (root,) = [transforms[name] for name in graph.root_transform_ids]
    names = [transforms[name].unique_name for name in root.subtransforms] or [root.unique_name]
    assert [name.partition("(")[0] for name in names] == [
        "JobParts",
        "SpreadParts",
        "PlanParts",
        "SpreadBatches",
        "Stylize",
        "WriteFinished",
        "WriteMade",
    ]


def test_graph_hints_reach_the_stage_that_makes_pictures(graph):
    components = graph.components
    hinted, plain = set(), set()
    for transform in components.transforms.values():
        hints = components.environments[transform.environment_id].resource_hints
        if transform.environment_id:
            (hinted if hints else plain).add(transform.unique_name)
        if hints:
            assert dict(hints) == {
                "beam:resources:accelerator:v1": b"type:nvidia-l4;count:1;install-nvidia-driver",
                "beam:resources:min_ram_bytes:v1": b"24000000000",
            }
    assert any("RunInference" in name for name in hinted)
    assert all(name.startswith("Stylize/") for name in hinted)
    assert plain and not any(name.startswith("Stylize/") for name in plain)


def test_graph_is_loadable_by_workers(graph):
    """They have the package, and not the script that built the graph."""
    pickles = []
    for text in re.findall(rb"[A-Za-z0-9+/]{40,}={0,2}", graph.SerializeToString()):
        for decompress in (zlib.decompress, bz2.decompress):
            with contextlib.suppress(ValueError, OSError, zlib.error):
                pickles.append(decompress(base64.b64decode(text)))
    assert sum(b"pipeline." in data for data in pickles) >= 5
    assert not [data for data in pickles if b"__main__" in data]
