"""What will be done, before anything is: header probes, spec hashes, output sizes, and
deterministic batches.
"""

import hashlib
import json
import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nst_ops.errors import InputError
from nst_ops.images import Header, is_whole, probe
from nst_ops.settings import INITS
from nst_ops.sizes import Size, output_size
from pipeline import files
from pipeline.config import RunConfig, spec_hash
from pipeline.manifest import Job
from pipeline.outputs import Row

_HEADER_BYTES = 2**18


@dataclass(frozen=True)
class PlannedJob:
    """A job whose files were seen: plain values only."""

    job: Job
    size: Size  # of the result
    spec_hash: str
    content_sha256: str
    style_sha256: tuple[str, ...]
    weights_sha256: str
    settings: str  # the row's RunConfig, as JSON: jobs of one batch share it

    @property
    def seed(self) -> int:
        """Of everything random in this job, from the settings' and the photo: any batch's."""
        settings = RunConfig.model_validate_json(self.settings)
        return (settings.seed + int(self.content_sha256[:7], 16)) % 2**31

    @property
    def bucket(self) -> tuple[Size, str]:
        """Jobs with the same bucket can be optimised together."""
        return self.size, self.settings

    def facts(self) -> Row:
        """The columns of the metadata that are known by now."""
        return {
            "height": self.size[0],
            "width": self.size[1],
            "seed": self.seed,
            "spec_hash": self.spec_hash,
            "content_sha256": self.content_sha256,
            "style_sha256": list(self.style_sha256),
            "weights_sha256": self.weights_sha256,
        }


class Planner:
    """Plans jobs of one run; remembers the paintings' hashes, which many rows share.

    Args:
      run: settings that rows override.
      weights_sha256: of the network's weights.
    """

    def __init__(self, run: RunConfig, weights_sha256: str):
        self.run, self.weights_sha256 = run, weights_sha256
        self._paintings: OrderedDict[tuple[str, int], str] = OrderedDict()
        self._seen: set[str] = set()  # paintings whose headers are sound

    def plan(self, job: Job) -> PlannedJob:
        """Reads the job's files and their headers.

        Raises:
          InputError, ConfigError: a file is missing, no image or too small or large; a setting is
            out of range.
        """
        config = job.config(self.run)
        data = files.read(job.content, config.max_file_bytes)
        header = probe(data, path=job.content, max_pixels=config.max_pixels)
        try:
            size = output_size(header.size, config)
        except InputError as error:
            raise InputError(str(error), path=job.content) from error
        content = hashlib.sha256(data).hexdigest()
        styles = tuple(self._painting(path, config) for path, _ in job.styles)
        sources = {
            "content": content,
            "styles": [(sha, weight) for sha, (_, weight) in zip(styles, job.styles, strict=True)],
            "weights": self.weights_sha256,
        }
        if config.init_file:
            try:
                sources["init"] = self._painting(config.init_file, config)
            except InputError as error:
                raise InputError(
                    f"init is none of {', '.join(INITS)}, so a file: {error}"
                ) from error
        # A file's name is no part of the picture.
        recipe = config.recipe() | {
            "weights": "",
            "init": config.init if "init" not in sources else "file",
        }
        identity = spec_hash(recipe, sources)
        return PlannedJob(
            job, size, identity, content, styles, self.weights_sha256, config.model_dump_json()
        )

    def size(self, job: Job) -> Size:
        """The result's size, from headers only: for who wants to know what a run would meet.

        Raises:
          InputError, ConfigError: as `plan`, as far as headers tell.
        """
        config = job.config(self.run)
        for path in [*(path for path, _ in job.styles), *filter(None, [config.init_file])]:
            if path not in self._seen:
                _header(path, config)
                self._seen.add(path)
        try:
            return output_size(_header(job.content, config).size, config)
        except InputError as error:
            if error.path:
                raise
            raise InputError(str(error), path=job.content) from error

    def _painting(self, path: str, config: RunConfig) -> str:
        """SHA-256 of a painting that can be read, computed once per run."""
        key = (path, config.max_pixels)
        if key not in self._paintings:
            data = files.read(path, config.max_file_bytes)
            probe(data, path=path, max_pixels=config.max_pixels)
            self._paintings[key] = hashlib.sha256(data).hexdigest()
            if len(self._paintings) > 10_000:
                self._paintings.popitem(last=False)
        return self._paintings[key]


def _header(path: str, config: RunConfig) -> Header:
    """Of an image file, of which no more is read than has to be."""
    start = files.read(path, config.max_file_bytes, first=_HEADER_BYTES)
    try:
        return probe(start, path=path, max_pixels=config.max_pixels)
    except InputError:
        if len(start) < _HEADER_BYTES:
            raise
    # A header of unusual length, or behind the pixels.
    whole = files.read(path, config.max_file_bytes)
    return probe(whole, path=path, max_pixels=config.max_pixels)


def is_done(planned: PlannedJob, images: str) -> bool:
    """Whether the picture is in the folder `images` and says that it was made to this very spec."""
    path = files.join(images, planned.job.output)
    try:
        data = files.read(path)
        header = probe(data, path=path, max_pixels=sys.maxsize)
    except InputError:
        return False  # not there, or damaged: it will be made
    if not is_whole(data):
        return False
    found = (header.provenance or {}).get("spec_hash")
    return found == planned.spec_hash and header.size == planned.size


def bucket_key(planned: PlannedJob, groups: int) -> str:
    """Key under which jobs that can share a batch meet; stable between runs and machines.

    Args:
      groups: that the jobs of one shape are cut into.
    """
    group = int(hashlib.sha256(planned.job.id.encode()).hexdigest(), 16) % groups
    return json.dumps([*planned.bucket, group])


def cut_batches(jobs: Iterable[PlannedJob]) -> Iterator[tuple[PlannedJob, ...]]:
    """Cuts the jobs of one bucket into batches, in the manifest's order."""
    ordered = sorted(jobs, key=lambda planned: planned.job.line)
    config = RunConfig.model_validate_json(ordered[0].settings)
    count = config.batch_of(ordered[0].size[0] * ordered[0].size[1])
    for start in range(0, len(ordered), count):
        yield tuple(ordered[start : start + count])
