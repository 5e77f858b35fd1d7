"""What a run would meet, from headers only: problems, batches, memory and hours."""

import contextlib
import datetime
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nst_ops.coarse_to_fine.schedule import pixel_steps
from nst_ops.engines.memory import MemoryPlan, Sources, plan_memory
from nst_ops.errors import InputError
from nst_ops.images.size import Size
from pipeline.config.run_config import RunConfig
from pipeline.errors import ConfigError
from pipeline.jobs.job import BadRow, Job
from pipeline.machine import parallelism
from pipeline.manifest.reader import checked_rows
from pipeline.planning.planner import Planner

_PROBE_SIZE, _PROBE_STEPS = 256, 4


@dataclass
class Findings:
    """Of a manifest under a config."""

    run: RunConfig
    rows: int = 0
    # By kind: (line, message).
    problems: dict[str, list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))
    # The lines of pictures of one size under one row's settings, which are JSON.
    shapes: dict[tuple[Size, str], list[int]] = field(default_factory=lambda: defaultdict(list))
    sources: dict[tuple[Size, str], Sources] = field(default_factory=dict)  # the largest of each

    def kinds(self) -> Iterator[tuple[Size, RunConfig, int]]:
        """Sizes, settings, and how many pictures have both."""
        for (size, settings), lines in self.shapes.items():
            yield size, RunConfig.model_validate_json(settings), len(lines)

    @property
    def processes(self) -> int:
        """That would run here."""
        return parallelism.processes(self.run, self.rows)

    @property
    def batches(self) -> int:
        """That the pictures are cut into."""
        return sum(
            -(-count // config.batch_of(size[0] * size[1])) for size, config, count in self.kinds()
        )

    @property
    def work(self) -> int:
        """Pixels times steps at most, of all pictures."""
        return sum(count * pixel_steps(size, config) for size, config, count in self.kinds())

    def lines(self) -> list[str]:
        """For people."""
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
        """For people.

        Args:
          speed: million pixels x steps a second, of one process.
        """
        seconds = self.work / (speed * 1e6)
        end = datetime.timedelta(seconds=round(seconds))
        pictures = sum(map(len, self.shapes.values()))
        return (
            f"time of one process: about {end} ({seconds / pictures:.1f} s a picture at "
            f"{speed:.2f} million px x steps a second); {self.processes} process(es) would run here"
        )

    def _peak(self) -> int:
        peaks = []
        for shape, lines in self.shapes.items():
            size, settings = shape
            config = RunConfig.model_validate_json(settings)
            batch = min(len(lines), config.batch_of(size[0] * size[1]))
            for count in (batch, 1):  # a batch is halved until it fits
                with contextlib.suppress(InputError):
                    peaks.append(self.plan(shape, count).bytes)
                    break
        return max(peaks, default=0)

    def plan(self, shape: tuple[Size, str], count: int = 1) -> MemoryPlan:
        """How so many pictures of this shape would be computed here, in as many processes as would
        share the memory.

        Raises:
          InputError: they do not fit.
        """
        size, config = shape[0], RunConfig.model_validate_json(shape[1])
        return plan_memory(
            size,
            config,
            batch=count,
            limit=parallelism.room_for_pictures(config, self.processes),
            tiling=config.tiling,
            sources=self.sources[shape],
        )


def examine(manifest: str, config: RunConfig) -> Findings:
    """Reads the manifest and the headers of all images."""
    found = Findings(config)
    planner = Planner(config, "")
    for row in checked_rows(manifest, config):
        found.rows += 1
        if isinstance(row, BadRow):
            found.problems["rows that cannot be used"].append((row.line, row.message))
            continue
        try:
            own, (size, sources) = planner.config(row), planner.probe(row)
            shape = size, own.model_dump_json()
            found.shapes[shape].append(row.line)
            found.sources[shape] = sources.join(found.sources.get(shape, sources))
        except (ConfigError, InputError) as error:
            found.problems[_kind(row, error)].append((row.line, str(error)))
    for shape, lines in list(found.shapes.items()):
        try:
            found.plan(shape)  # now that it is known how many share the memory
        except InputError as error:
            del found.shapes[shape]
            problems = found.problems["pictures too large for memory_limit"]
            problems += [(line, str(error)) for line in lines]
    return found


def measure_speed(config: RunConfig) -> float:
    """Million pixels x steps a second of this process, by a short optimization."""
    from pipeline.machine.tensorflow_setup import start_tensorflow

    start_tensorflow()
    from nst_ops.coarse_to_fine.loop import run

    quick: dict[str, Any] = {
        "scales": [{"size": _PROBE_SIZE, "steps": _PROBE_STEPS}],
        "init": "content",
        "tolerance": 0.0,
    }
    settings = RunConfig.model_validate(config.model_dump() | quick)
    photo = np.random.default_rng(0).random((_PROBE_SIZE, _PROBE_SIZE, 3), np.float32)
    run(photo, [photo], settings)  # traces
    started = time.perf_counter()
    run(photo, [photo], settings)
    return pixel_steps((_PROBE_SIZE, _PROBE_SIZE), settings) / (time.perf_counter() - started) / 1e6


def _kind(job: Job, error: Exception) -> str:
    if isinstance(error, ConfigError):
        return "settings out of range"
    paintings = {path for path, _ in job.styles}
    whose = "paintings" if getattr(error, "path", "") in paintings else "photos"
    text = str(error)
    if "cannot be read" in text:
        return f"{whose} that cannot be read"
    if "sides of at least" in text:
        return f"{whose} too small"
    if "can hold" in text:
        return "pictures too large for their format"
    if "max_pixels" in text or "max_file_bytes" in text:
        return f"{whose} too large"
    return f"{whose} that are no images"
