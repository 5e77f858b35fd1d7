"""No picture may take the place of a file that the run reads."""

import functools
import os
from collections.abc import Iterable

from nst_ops.errors import InputError
from pipeline.config.run_config import RunConfig
from pipeline.store import files


class Originals:
    """Watches over a run's files: every output and every input is shown to it.

    Files are compared by what they are, not by name, so links and disks that do not tell A from a
    are seen through. Only outputs that are there already can be inputs, and only they are kept.

    Args:
      images: the folder that outputs go to.
    """

    def __init__(self, images: str):
        self._images = images
        self._outputs: dict[object, str] = {}
        self._inputs: dict[object, str] = {}
        self._known = functools.lru_cache(10_000)(_identity)  # rows share paintings

    def writes(self, output: str) -> None:
        """A picture will have this name in the folder."""
        path = files.join(self._images, output)
        if key := _identity(path):
            self._outputs.setdefault(key, path)

    def reads(self, paths: Iterable[str]) -> None:
        """The run depends on these files."""
        for path in paths:
            if key := self._known(path):
                self._inputs.setdefault(key, path)

    def check_against(self, config_file: str | None, config: RunConfig) -> None:
        """The same with what any command reads beside photos and paintings.

        Raises:
          InputError: as `check`.
        """
        engine = config.engine
        self.reads(filter(None, (config_file, engine.initial_file, *engine.asset_files)))
        self.check()

    def check(self) -> None:
        """Raises InputError, naming both, if an output is an input."""
        for key in self._outputs.keys() & self._inputs.keys():
            raise InputError(
                f"would replace {self._inputs[key]}, which the run reads; give another --output, "
                "or another `output` or `id` in the manifest",
                path=self._outputs[key],
            )


def _identity(path: str) -> object:
    """What the file is; None if there is none."""
    if files.is_url(path):
        return path
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino
