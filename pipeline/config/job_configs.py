"""Gives each job its settings: those of the run, with what its row of the manifest overrides."""

import contextlib
import json
from collections import OrderedDict

from pipeline.config.loading import validate
from pipeline.config.run_config import RunConfig
from pipeline.jobs.job import Job

_REMEMBERED = 10_000


class JobConfigs:
    """Validates settings once for all jobs that share them: most rows do.

    Args:
      run: the settings that rows override.
    """

    def __init__(self, run: RunConfig):
        self.run = run
        self._known: OrderedDict[tuple[tuple[str, str], ...], RunConfig] = OrderedDict()

    def of(self, job: Job) -> RunConfig:
        """Returns the settings of a job.

        Raises:
          ConfigError: one is unknown or out of range.
        """
        if not job.overrides:
            return self.run
        found = self._known.get(job.overrides)
        if found is None:
            own = {key: json.loads(value) for key, value in job.overrides}
            found = self._known[job.overrides] = validate({**self.run.model_dump(), **own})
            if len(self._known) > _REMEMBERED:
                with contextlib.suppress(KeyError):  # another thread was faster
                    self._known.popitem(last=False)
        return found
