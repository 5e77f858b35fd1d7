"""Runs in this process: the real engine, without the seconds that a new process takes to start."""

import csv

import pytest

from pipeline.config.job_configs import JobConfigs
from pipeline.config.run_config import RunConfig
from pipeline.jobs.job import BadRow
from pipeline.jobs.shard import Shard
from pipeline.manifest.parts import JobParts
from pipeline.manifest.reader import checked_rows, read_manifest
from pipeline.planning.planner import Planner
from pipeline.runs.beam_options import beam_options
from pipeline.runs.launcher import execute
from pipeline.runs.preparation import PreparedRun, new_spec
from pipeline.workers.stylizer import Stylizer

from ..conftest import IMAGES

# A picture of these takes a fraction of a second.
QUICK = {
    "precision": "float32",
    "octaves": [1.0],
    "scales": [{"size": 48, "steps": 3}, {"size": 64, "steps": 2}],
    "content_layers": ["block2_conv1"],
    "style_layers": ["block1_conv1", "block2_conv1"],
    "tolerance": 0.0,
    "attention_weight": 0.0,
    "parallelism": 1,
}


def settings(**changes):
    return RunConfig.model_validate(QUICK | changes)


def write_manifest(path, photos, painting="cafe_terrace_at_night", **columns):
    """Rows of the examples' photos by name, or of any path."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["content", "style", *columns])
        for index, photo in enumerate(photos):
            content = IMAGES / f"{photo}.jpg" if "." not in str(photo) else photo
            values = [column[index] for column in columns.values()]
            writer.writerow([content, IMAGES / f"{painting}.jpg", *values])
    return path


def config_of(job, run):
    """The settings of a job."""
    return JobConfigs(run).of(job)


def count_rows(path, config, originals=None):
    """How many rows a manifest has, and the bad ones."""
    rows = list(checked_rows(str(path), config, originals))
    return len(rows), [row for row in rows if isinstance(row, BadRow)]


_planned = []  # jobs, and with which settings


def plans(manifest, config, **options):
    """What a run would hand to its Stylizers. Options are those of `Planner.plan`."""
    planner = Planner(config, config.engine.assets())
    planned = [planner.plan(job, **options) for job in read_manifest(str(manifest), config)]
    _planned.extend((each, config) for each in planned)
    return planned


def stylizer(folder, batch, **options):
    """That of a worker of the run that has planned the batch."""
    config = next(config for planned, config in _planned if planned is batch[0])
    return Stylizer(str(folder), "run", config, **options)


@pytest.fixture
def run_manifest(tmp_path):
    """Runs a manifest; returns the summary."""

    def run(manifest, config=None, *, folder=tmp_path / "out", warnings=None, **options):
        config = config or settings()
        parts = JobParts(checked_rows(str(manifest), config), options.get("shard", Shard()))
        beam = beam_options([], config, parts.rows)
        assets = config.engine.assets()
        spec = new_spec(str(manifest), str(folder), config, parts, assets, beam, **options)
        said = [] if warnings is None else warnings
        prepared = PreparedRun(spec, parts, beam, [])
        return execute(prepared, lambda progress: None, said.append, in_attempts=False)

    return run
