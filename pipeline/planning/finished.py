"""What needs no work any more: pictures that are there, and rows of this run's earlier attempts."""

from nst_ops.engines.memory import plan_memory
from nst_ops.errors import InputError
from pipeline.config.run_config import RunConfig
from pipeline.jobs.planned_job import PlannedJob
from pipeline.machine import parallelism
from pipeline.store import files
from pipeline.store.file_index import FileIndex
from pipeline.store.journal import Journal
from pipeline.store.layout import images_folder, now
from pipeline.store.metadata import Row, row


class Finished:
    """Looks for what is done.

    Args:
      folder: the run's.
      run_id: of the run.
      index: reads pictures, or knows what they hold.
      processes: that share this machine's memory.
    """

    def __init__(self, folder: str, run_id: str, index: FileIndex, processes: int = 1):
        self._images, self._run_id = images_folder(folder), run_id
        self._index, self._processes = index, processes
        self._earlier = Journal.of_run(folder, run_id)

    def row(self, planned: PlannedJob, config: RunConfig) -> Row | None:
        """Of a job that needs no work; None if it does."""
        started = now()
        spec_hash = self._spec_hash(planned, config)
        earlier = self.earlier_row(planned.job.output)
        if earlier and (earlier["status"] == "failed" or earlier["spec_hash"] == spec_hash):
            return earlier
        if not spec_hash:
            return None
        facts = planned.facts() | {"spec_hash": spec_hash, "started_at": started}
        return row(self._run_id, planned.job, "cached", **facts)

    def earlier_row(self, output: str) -> Row | None:
        """Of an earlier attempt of this run: with the figures of the picture that it made, or with
        the reason why it could not.
        """
        return self._earlier.find(output)

    def _spec_hash(self, planned: PlannedJob, config: RunConfig) -> str:
        """Of the picture that is there, if there is nothing better to be made here; else ""."""
        path = files.join(self._images, planned.job.output)
        try:
            found = self._index.result(path)
        except InputError:
            return ""  # not there, or damaged: it will be made
        if not found.spec_hash or found.size != planned.size:
            return ""
        if found.spec_hash == planned.adam_hash != planned.spec_hash:
            # What Adam has made for want of memory is made anew by a run that has it.
            return "" if has_room_for(planned, config, self._processes) else found.spec_hash
        return found.spec_hash if found.spec_hash == planned.spec_hash else ""


def has_room_for(planned: PlannedJob, config: RunConfig, processes: int) -> bool:
    """Whether L-BFGS, where the settings ask for it, has the memory that it needs here."""
    limit = parallelism.room_for_pictures(config, processes)
    try:
        plan = plan_memory(
            planned.size, config, limit=limit, tiling=config.tiling, sources=planned.sources
        )
    except InputError:  # there is no way at all
        return False
    return plan.optimizer == config.optimizer
