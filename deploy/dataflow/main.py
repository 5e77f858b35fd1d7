"""Starts a run on Dataflow as a flex template: its parameters are `nst run`'s options.

Try it with the runner in this process instead of Dataflow:

    python deploy/dataflow/main.py --runner=FnApiRunner --direct_num_workers=1 \
        --config=configs/draft.yaml --manifest=examples/manifest.csv --output=out/template

Nobody waits for a template's job: this ends when Dataflow has the graph, so the run has pictures
and metadata, but no exit code, summary or report.

Not run here: Dataflow. Checked: parameters, the graph, and a run with the runner in this process
(tests/deploy).
"""

import argparse
import math
import shlex
import sys
import tempfile
from collections.abc import Sequence

import apache_beam as beam
from apache_beam.runners.runner import PipelineResult

from pipeline.cli import main
from pipeline.config.loading import load_config
from pipeline.runs.graph import build
from pipeline.runs.preparation import prepare_run
from pipeline.store import files
from pipeline.workers.limits import parse_deadline

# Those of metadata.json. The launcher passes them as --name=value, and Beam's options with them.
PARAMETERS = ("config", "manifest", "output", "set", "max_hours", "retry_failed")


def arguments(given: Sequence[str]) -> list[str]:
    """Of `nst run`, from what the launcher passes."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in PARAMETERS:
        parser.add_argument(f"--{name}", default="")
    parser.add_argument("--runner", default="DataflowRunner")
    known, beams = parser.parse_known_args(given)
    words = ["run", f"--manifest={known.manifest}", f"--output={known.output}"]
    # A form in the console passes what was left empty.
    words += [f"--config={_local(known.config)}"] if known.config else []
    words += [f"--set={setting}" for setting in shlex.split(known.set)]
    words += [f"--max_hours={known.max_hours}"] if known.max_hours else []
    words += ["--no-retry_failed"] if known.retry_failed == "false" else []
    return [*words, f"--runner={known.runner}", *beams]


def start(given: Sequence[str]) -> PipelineResult:
    """Hands the graph to the runner.

    Raises:
      ConfigError, ManifestError, InputError: as `nst run` would; nothing was started.
    """
    options, rest = main._parser().parse_known_args(arguments(given))
    run = prepare_run(
        options.manifest,
        options.output,
        load_config(options.config, options.overrides),
        arguments=rest,
        deadline=parse_deadline(None, options.max_hours),
        retry_failed=options.retry_failed,
    )
    spec = run.spec
    run.parts.publish(spec.folder, spec.run_id)
    pipeline = beam.Pipeline(options=run.options)
    build(pipeline, spec)
    until = "" if math.isinf(spec.deadline) else f", for {options.max_hours:g} hours"
    print(f"run {spec.run_id}: {run.parts.rows} rows to {spec.folder}{until}", flush=True)
    return pipeline.run()


def _local(config: str) -> str:
    """A config may be in a bucket; `--config` wants a file."""
    if not files.is_url(config):
        return config
    with tempfile.NamedTemporaryFile(suffix=".yaml", delete=False) as file:
        file.write(files.read(config))
    return file.name


if __name__ == "__main__":
    start(sys.argv[1:])
