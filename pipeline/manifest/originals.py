"""Keeps a run from writing a picture over a file that it reads."""

import functools
import os
from collections.abc import Iterable

from nst_ops.errors import InputError
from pipeline.config.run_config import RunConfig
from pipeline.store import files


class Originals:
    """Is shown every output and every input of a run, and finds outputs that would replace inputs.

    Files are compared by device and inode, not by name, which sees through links and through disks
    that do not tell A from a. Only outputs that exist already can be inputs, so only they are kept.

    Args:
      images: the folder that pictures are written to.
    """

    def __init__(self, images: str):
        self._images = images
        self._outputs: dict[object, str] = {}
        self._inputs: dict[object, str] = {}
        self._known = functools.lru_cache(10_000)(_identity)  # rows share paintings

    def writes(self, output: str) -> None:
        """Notes that the run will write a picture of this name, relative to the images folder."""
        path = files.join(self._images, output)
        if key := _identity(path):
            self._outputs.setdefault(key, path)

    def reads(self, paths: Iterable[str]) -> None:
        """Notes that the run reads these files."""
        for path in paths:
            if key := self._known(path):
                self._inputs.setdefault(key, path)

    def check_against(self, config_file: str | None, config: RunConfig) -> None:
        """Notes what every command reads beside photos and paintings, and then checks.

        Raises:
          InputError: as `check`.
        """
        engine = config.engine
        self.reads(filter(None, (config_file, engine.initial_file, *engine.asset_files)))
        self.check()

    def check(self) -> None:
        """Raises an InputError that names both files if an output would replace an input."""
        for key in self._outputs.keys() & self._inputs.keys():
            raise InputError(
                f"would replace {self._inputs[key]}, which the run reads; give another --output, "
                "or another `output` or `id` in the manifest",
                path=self._outputs[key],
            )


def _identity(path: str) -> object:
    """Returns what two names of one file share: device and inode; None if there is no file."""
    if files.is_url(path):
        return path
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino
