"""What will be done, before anything is: header probes, spec hashes, output sizes, and
deterministic batches.
"""

import contextlib
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from nst_ops.coarse_to_fine.schedule import largest_style_side, output_size
from nst_ops.engines.memory import Sources
from nst_ops.errors import InputError
from nst_ops.images.codec import Header, check_format, probe
from nst_ops.images.size import Size, fit
from nst_ops.settings import INITS
from pipeline.config.run_config import RunConfig, spec_hash
from pipeline.jobs.job import Job
from pipeline.jobs.planned_job import PlannedJob
from pipeline.store import files
from pipeline.store.file_index import Facts, FileIndex

_HEADER_BYTES = 2**18
_REMEMBERED = 10_000  # paintings


class Planner:
    """Plans jobs of one run, perhaps several at a time; remembers what it read of paintings, which
    many rows share.

    Args:
      run: settings that rows override.
      weights_sha256: of the network's weights.
      index: reads files, or knows what they hold.
    """

    def __init__(self, run: RunConfig, weights_sha256: str, index: FileIndex | None = None):
        self.run, self.weights_sha256 = run, weights_sha256
        self._index = index or FileIndex()
        self._paintings: OrderedDict[tuple[str, int], Facts] = OrderedDict()
        self._headers: OrderedDict[tuple[str, int], Header] = OrderedDict()
        self._configs: OrderedDict[Any, RunConfig] = OrderedDict()
        self._known_recipes: OrderedDict[Any, tuple[Any, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def plan(self, job: Job) -> PlannedJob:
        """Looks the job's files up, or reads them and their headers.

        Raises:
          InputError, ConfigError: a file is missing, no image or too small or large; a setting is
            out of range.
        """
        config = self.config(job)
        content = self._index.facts(
            job.content, max_bytes=config.max_file_bytes, max_pixels=config.max_pixels
        )
        styles = [self._painting(path, config) for path, _ in job.styles]
        init = self._init(config)
        size, sides, sources = _fit(
            job,
            config,
            content.header,
            [style.header for style in styles],
            init and init.header,
        )
        recipe, with_adam = self._recipes(job, config, size)
        hashed: dict[str, Any] = {
            "content": content.sha256,
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
            spec_hash(recipe, hashed),
            content.sha256,
            tuple(style.sha256 for style in styles),
            init.sha256 if init else "",
            self.weights_sha256,
            spec_hash(with_adam, hashed),
            sides,
            sources,
            (config.seed + int(content.sha256[:7], 16)) % 2**31,
        )

    def probe(self, job: Job) -> tuple[Size, Sources]:
        """The result's size and what is read for it, from headers only: for who wants to know what
        a run would meet.

        Raises:
          InputError, ConfigError: as `plan`, as far as headers tell.
        """
        config = self.config(job)
        styles = [self._header(path, config) for path, _ in job.styles]
        init = self._header(config.init_file, config) if config.init_file else None
        size, _, sources = _fit(job, config, _header(job.content, config), styles, init)
        return size, sources

    def config(self, job: Job) -> RunConfig:
        """The settings of a job; validated once for all jobs that have the same.

        Raises:
          ConfigError: a setting is out of range.
        """
        return _remembered(self._configs, job.overrides, lambda: job.config(self.run))

    def _recipes(self, job: Job, config: RunConfig, size: Size) -> tuple[Any, Any]:
        """With the optimizer that is asked for, and with Adam."""

        def make() -> tuple[Any, Any]:
            return config.recipe(size), config.with_adam().recipe(size)

        return _remembered(self._known_recipes, (job.overrides, size), make)

    def _init(self, config: RunConfig) -> Facts | None:
        if not config.init_file:
            return None
        try:
            return self._painting(config.init_file, config)
        except InputError as error:
            raise InputError(f"init is none of {', '.join(INITS)}, so a file: {error}") from error

    def _painting(self, path: str, config: RunConfig) -> Facts:
        """Looked up once per run."""
        limits = {"max_bytes": config.max_file_bytes, "max_pixels": config.max_pixels}
        key = (path, config.max_pixels)
        with self._lock:  # many rows begin with the same painting
            return _remembered(self._paintings, key, lambda: self._index.facts(path, **limits))

    def _header(self, path: str, config: RunConfig) -> Header:
        key = (path, config.max_pixels)
        return _remembered(self._headers, key, lambda: _header(path, config))


def _remembered(known: OrderedDict[Any, Any], key: Any, read: Callable[[], Any]) -> Any:
    found = known.get(key)
    if found is None:
        found = known[key] = read()
        if len(known) > _REMEMBERED:
            with contextlib.suppress(KeyError):  # another thread was faster
                known.popitem(last=False)
    return found


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
