"""Cuts planned jobs into batches that are made together."""

from collections.abc import Iterable, Iterator
from typing import Any

from pipeline.config.job_configs import JobConfigs
from pipeline.jobs.planned_job import PlannedJob


def cut_batches(
    jobs: Iterable[PlannedJob], configs: JobConfigs, workers: int = 1
) -> Iterator[tuple[PlannedJob, ...]]:
    """Cuts jobs into batches that share shape and settings, in the manifest's order.

    The same jobs are always cut in the same way, whichever of them are done already.

    Args:
      configs: gives the settings of each job.
      workers: how many there are; few jobs are cut small enough for each to get some.
    """
    buckets: dict[Any, list[PlannedJob]] = {}
    for planned in sorted(jobs, key=lambda planned: planned.job.line):
        buckets.setdefault(planned.bucket, []).append(planned)
    for bucket in buckets.values():
        most = configs.of(bucket[0].job).batch_of(bucket[0].size)
        count = min(most, -(-len(bucket) // workers))
        for start in range(0, len(bucket), count):
            yield tuple(bucket[start : start + count])
