"""What will be done, before anything is: header probes, spec hashes, output sizes, and
deterministic batches.
"""

import contextlib
import hashlib
import json
import math
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from nst_ops.errors import InputError
from nst_ops.images import Header, check_format, is_whole, probe
from nst_ops.memory import Sources
from nst_ops.settings import INITS
from nst_ops.sizes import Size, fit, largest_style_side, output_size
from pipeline import files
from pipeline.config import RunConfig, spec_hash
from pipeline.manifest import Job
from pipeline.outputs import Row

_HEADER_BYTES = 2**18
_REMEMBERED = 10_000  # paintings


@dataclass(frozen=True)
class PlannedJob:
    """A job whose files were seen: plain values only."""

    job: Job
    size: Size  # of the result
    spec_hash: str
    content_sha256: str
    style_sha256: tuple[str, ...]
    init_sha256: str  # "" where no file is the first picture
    weights_sha256: str
    adam_hash: str  # the spec hash of what Adam makes, where memory is short for L-BFGS
    style_sides: tuple[int, ...]  # long side in px at which each painting is seen at most
    sources: Sources
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


class Painting(NamedTuple):
    """What is known of a painting, or the picture to start from, before it is decoded."""

    sha256: str
    header: Header


class Planner:
    """Plans jobs of one run; remembers what it read of paintings, which many rows share.

    Args:
      run: settings that rows override.
      weights_sha256: of the network's weights.
    """

    def __init__(self, run: RunConfig, weights_sha256: str):
        self.run, self.weights_sha256 = run, weights_sha256
        self._paintings: OrderedDict[tuple[str, int], Painting] = OrderedDict()
        self._headers: OrderedDict[tuple[str, int], Header] = OrderedDict()

    def plan(self, job: Job) -> PlannedJob:
        """Reads the job's files and their headers.

        Raises:
          InputError, ConfigError: a file is missing, no image or too small or large; a setting is
            out of range.
        """
        config = job.config(self.run)
        data = files.read(job.content, config.max_file_bytes)
        header = probe(data, path=job.content, max_pixels=config.max_pixels)
        content = hashlib.sha256(data).hexdigest()
        styles = [self._painting(path, config) for path, _ in job.styles]
        init = self._init(config)
        size, sides, sources = _fit(
            job, config, header, [style.header for style in styles], init and init.header
        )
        hashed: dict[str, Any] = {
            "content": content,
            "styles": [
                (s.sha256, weight) for s, (_, weight) in zip(styles, job.styles, strict=True)
            ],
            "weights": self.weights_sha256,
        }
        if init:
            hashed["init"] = init.sha256
        return PlannedJob(
            job,
            size,
            spec_hash(config.recipe(size), hashed),
            content,
            tuple(style.sha256 for style in styles),
            init.sha256 if init else "",
            self.weights_sha256,
            spec_hash(config.with_adam().recipe(size), hashed),
            sides,
            sources,
            config.model_dump_json(),
        )

    def probe(self, job: Job) -> tuple[Size, Sources]:
        """The result's size and what is read for it, from headers only: for who wants to know what
        a run would meet.

        Raises:
          InputError, ConfigError: as `plan`, as far as headers tell.
        """
        config = job.config(self.run)
        styles = [self._header(path, config) for path, _ in job.styles]
        init = self._header(config.init_file, config) if config.init_file else None
        size, _, sources = _fit(job, config, _header(job.content, config), styles, init)
        return size, sources

    def _init(self, config: RunConfig) -> Painting | None:
        if not config.init_file:
            return None
        try:
            return self._painting(config.init_file, config)
        except InputError as error:
            raise InputError(f"init is none of {', '.join(INITS)}, so a file: {error}") from error

    def _painting(self, path: str, config: RunConfig) -> Painting:
        """Read and hashed once per run."""

        def read() -> Painting:
            data = files.read(path, config.max_file_bytes)
            header = probe(data, path=path, max_pixels=config.max_pixels)
            return Painting(hashlib.sha256(data).hexdigest(), header)

        return _remembered(self._paintings, (path, config.max_pixels), read)

    def _header(self, path: str, config: RunConfig) -> Header:
        key = (path, config.max_pixels)
        return _remembered(self._headers, key, lambda: _header(path, config))


def _remembered(known: OrderedDict[Any, Any], key: Any, read: Callable[[], Any]) -> Any:
    if key not in known:
        known[key] = read()
        if len(known) > _REMEMBERED:
            known.popitem(last=False)
    return known[key]


def _fit(
    job: Job, config: RunConfig, content: Header, styles: Sequence[Header], init: Header | None
) -> tuple[Size, tuple[int, ...], Sources]:
    """The result's size, the long sides at which its paintings are seen, and what is read for it.

    Raises:
      InputError: too small for the network, too large for the file's format.
    """
    with _naming(job.content):
        size = output_size(content.size, config)
        check_format(size, config.format)
    sides = []
    for (path, _), header in zip(job.styles, styles, strict=True):
        with _naming(path):
            sides.append(largest_style_side(header.size, size, config))
    wanted = [(content, max(size)), *zip(styles, sides, strict=True)]
    seen = [fit(header.size, side) for header, side in wanted[1:]]
    wanted += [(init, max(size))] if init else []
    decoded = max(header.decoded_pixels(side) for header, side in wanted)
    return size, tuple(sides), Sources(decoded, max(seen, key=math.prod))


@contextlib.contextmanager
def _naming(path: str) -> Iterator[None]:
    """Errors name the file, if they do not yet."""
    try:
        yield
    except InputError as error:
        if error.path:
            raise
        raise InputError(str(error), path=path) from error


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


def finished_hash(planned: PlannedJob, images: str) -> str:
    """The spec hash of the picture that is in the folder `images`, as it says itself; "" if there
    is none, or none of ours, or it is not whole.
    """
    path = files.join(images, planned.job.output)
    try:
        data = files.read(path)
        header = probe(data, path=path, max_pixels=sys.maxsize)
    except InputError:
        return ""  # not there, or damaged: it will be made
    # In this order: a picture of another size may be too large to be decoded.
    if header.size != planned.size or not is_whole(data):
        return ""
    return str((header.provenance or {}).get("spec_hash", ""))


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
