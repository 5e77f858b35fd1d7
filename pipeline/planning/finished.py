"""Finds jobs that need no work: their picture is there, or an earlier attempt ended with a row."""

from nst_ops.errors import InputError
from pipeline.config.run_config import RunConfig
from pipeline.jobs.planned_job import PlannedJob
from pipeline.jobs.row import Row
from pipeline.machine import parallelism
from pipeline.store import files
from pipeline.store.file_index import FileIndex
from pipeline.store.journal import Journal
from pipeline.store.layout import images_folder, now
from pipeline.store.metadata import row


class Finished:
    """Looks up which jobs of a run need no work any more.

    Args:
      folder: the run's folder.
      run_id: the id of the run.
      index: tells what the pictures in the folder hold.
      processes: how many processes share this machine's memory.
    """

    def __init__(self, folder: str, run_id: str, index: FileIndex, processes: int = 1):
        self._images, self._run_id = images_folder(folder), run_id
        self._index, self._processes = index, processes
        self._earlier = Journal.of_run(folder, run_id)

    def row(self, planned: PlannedJob, config: RunConfig) -> Row | None:
        """Returns the metadata row of a job that needs no work; None if the job needs work."""
        started = now()
        found = self._spec_hash(planned, config)
        earlier = self.earlier_row(planned.job.output)
        if earlier and (earlier["status"] == "failed" or earlier["spec_hash"] == found):
            return earlier
        if not found:
            return None
        facts = planned.facts() | {"spec_hash": found, "started_at": started}
        return row(self._run_id, planned.job, "cached", **facts)

    def earlier_row(self, output: str) -> Row | None:
        """Returns the row that an earlier attempt of this run kept for this output, or None.

        It has the figures of the picture that was made, or the reason why none could be.
        """
        return self._earlier.find(output)

    def is_there(self, output: str) -> bool:
        """Says whether there may be a picture of this name, whatever it shows."""
        try:
            return files.exists(files.join(self._images, output))
        except InputError:  # a store that does not answer just now; whoever writes will see
            return True

    def _spec_hash(self, planned: PlannedJob, config: RunConfig) -> str:
        """Returns the hash of the picture that is there; "" if this run has to make it."""
        if not planned.spec_hashes:
            return ""
        try:
            found = self._index.result(files.join(self._images, planned.job.output))
        except InputError:
            return ""  # not there, or damaged: it will be made
        variant = planned.variants.get(found.spec_hash or "")
        if variant is None or found.size != planned.size:
            return ""
        # A variant that was made because memory was short is made anew where there is enough.
        if found.spec_hash != planned.spec_hash and self._has_room(planned, config):
            return ""
        return found.spec_hash or ""

    def _has_room(self, planned: PlannedJob, config: RunConfig) -> bool:
        """Says whether memory suffices for what was asked for, without a fallback variant."""
        limit = parallelism.room_for_pictures(config, self._processes)
        try:
            plan = config.engine.plan(
                planned.size, limit=limit, tiling=config.tiling, sources=planned.sources
            )
        except InputError:  # it cannot be made here at all
            return False
        return not plan.variant
