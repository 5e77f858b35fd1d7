"""Estimates a run from image headers only: its problems, batches, memory and hours."""

import contextlib
import datetime
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from nst_ops.engines.base import Plan, Resources, Sources
from nst_ops.errors import ErrorCode, InputError
from nst_ops.images.size import Size
from pipeline.config.job_configs import JobConfigs
from pipeline.config.run_config import RunConfig
from pipeline.errors import ConfigError
from pipeline.jobs.job import BadRow, Job
from pipeline.machine import parallelism
from pipeline.machine.tensorflow_setup import start_tensorflow
from pipeline.manifest.reader import checked_rows
from pipeline.planning.planner import Planner


class Shape(NamedTuple):
    """Names what pictures that are computed in the same way have in common."""

    size: Size
    overrides: tuple[tuple[str, str], ...]  # as `Job` has them


@dataclass
class Findings:
    """Collects what was found out about a manifest under a config."""

    configs: JobConfigs
    rows: int = 0
    # {kind: [(line, message)]}
    problems: dict[str, list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))
    shapes: dict[Shape, list[Job]] = field(default_factory=lambda: defaultdict(list))
    sources: dict[Shape, Sources] = field(default_factory=dict)  # the largest of each

    def kinds(self) -> Iterator[tuple[Size, RunConfig, int]]:
        """Yields sizes and settings, and how many pictures have both."""
        for shape, jobs in self.shapes.items():
            yield shape.size, self.configs.of(jobs[0]), len(jobs)

    @property
    def processes(self) -> int:
        """Returns how many processes would run on this machine."""
        return parallelism.processes(self.configs.run, self.rows)

    @property
    def batches(self) -> int:
        """Returns how many batches the pictures would be cut into."""
        return sum(-(-count // config.batch_of(size)) for size, config, count in self.kinds())

    @property
    def work(self) -> int:
        """Returns the cost of all pictures, in the engine's unit of cost."""
        return sum(count * config.engine.cost(size) for size, config, count in self.kinds())

    def lines(self) -> list[str]:
        """Returns the findings as lines of text to print: counts, and memory."""
        problems = sum(map(len, self.problems.values()))
        sizes = {size for size, _ in self.shapes}
        found = [
            f"{self.rows} rows, {problems} problems, {len(sizes)} distinct shapes, "
            f"{self.batches} batches"
        ]
        if self.shapes:
            found.append(f"memory of a process: about {self._peak() / 1e9:.1f} GB at most")
        return found

    def time(self, speed: float) -> str:
        """Returns a line of text to print: how long the pictures would take.

        Args:
          speed: of one process, in millions of the engine's units of cost per second.
        """
        seconds = self.work / (speed * 1e6)
        end = datetime.timedelta(seconds=round(seconds))
        pictures = sum(map(len, self.shapes.values()))
        return (
            f"time of one process: about {end} ({seconds / pictures:.1f} s a picture at a speed of "
            f"{speed:.2f}); {self.processes} process(es) would run here"
        )

    def _peak(self) -> int:
        peaks = []
        for shape, jobs in self.shapes.items():
            batch = min(len(jobs), self.configs.of(jobs[0]).batch_of(shape.size))
            for count in (batch, 1):  # a batch that does not fit is halved, down to one picture
                with contextlib.suppress(InputError):
                    peaks.append(self.plan(shape, count).bytes)
                    break
        return max(peaks, default=0)

    def plan(self, shape: Shape, count: int = 1) -> Plan:
        """Plans how `count` pictures of this shape would be computed together on this machine.

        Its memory is shared by as many processes as would run.

        Raises:
          InputError: they do not fit.
        """
        config = self.configs.of(self.shapes[shape][0])
        return config.engine.plan(
            shape.size,
            batch=count,
            limit=parallelism.room_for_pictures(config, self.processes),
            tiling=config.tiling,
            sources=self.sources[shape],
        )


def examine(manifest: str, config: RunConfig) -> Findings:
    """Reads the manifest and the headers of all its images, and returns what they tell."""
    planner = Planner(config, {})
    found = Findings(planner.configs)
    for row in checked_rows(manifest, config):
        found.rows += 1
        if isinstance(row, BadRow):
            found.problems["rows that cannot be used"].append((row.line, row.message))
            continue
        try:
            size, sources = planner.probe(row)
            shape = Shape(size, row.overrides)
            found.shapes[shape].append(row)
            found.sources[shape] = sources.join(found.sources.get(shape, sources))
        except (ConfigError, InputError) as error:
            found.problems[_kind(row, error)].append((row.line, str(error)))
    for shape, jobs in list(found.shapes.items()):
        try:
            found.plan(shape)  # only now is it known how many processes share the memory
        except InputError as error:
            del found.shapes[shape]
            problems = found.problems["pictures too large for memory_limit"]
            problems += [(job.line, str(error)) for job in jobs]
    return found


def measure_speed(config: RunConfig) -> float:
    """Measures this process in a short trial: millions of the engine's units of cost per second."""
    start_tensorflow()
    return config.engine.open(Resources(0, None, {})).measure_speed() / 1e6


_KINDS: dict[ErrorCode, str] = {
    "unreadable": "that cannot be read",
    "too_small": "too small",
    "too_large": "too large",
}


def _kind(job: Job, error: Exception) -> str:
    if isinstance(error, ConfigError):
        return "settings out of range"
    code = error.code if isinstance(error, InputError) else "invalid"
    if code == "format_limit":
        return "pictures too large for their format"
    path = getattr(error, "path", "")
    if path in dict(job.masks):
        return "masks that cannot be used"
    whose = "paintings" if path in job.style_files else "photos"
    return f"{whose} {_KINDS.get(code, 'that are no images')}"
