"""Plans jobs: looks at their files to say what will be made from what, before anything is made."""

import contextlib
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from nst_ops.engines.base import Sources
from nst_ops.errors import InputError, short
from nst_ops.images.codec import Header, check_format
from nst_ops.images.margins import fixed_margin
from nst_ops.images.size import Size, fit, same_aspect
from pipeline.config.job_configs import JobConfigs
from pipeline.config.run_config import RunConfig
from pipeline.jobs.job import Job, StyleSource
from pipeline.jobs.planned_job import PlannedJob
from pipeline.planning.identity import Identities
from pipeline.store.file_index import Facts, FileIndex

_REMEMBERED = 10_000  # paintings


class Planner:
    """Plans the jobs of one run, from several threads if need be.

    It remembers what it read of paintings, which many rows share.

    Args:
      run: the settings that rows override.
      assets: {name: SHA-256} of the files that the engine works with.
      index: tells what files hold, and reads those that it does not know.
    """

    def __init__(self, run: RunConfig, assets: Mapping[str, str], index: FileIndex | None = None):
        self.configs = JobConfigs(run)
        self._assets, self._index = assets, index or FileIndex()
        self._pictures: OrderedDict[tuple[str, int], Facts] = OrderedDict()
        self._headers: OrderedDict[tuple[str, int], Header] = OrderedDict()
        self._identities = Identities()
        self._lock = threading.Lock()

    def plan(self, job: Job, *, identify: bool = True) -> PlannedJob:
        """Plans one job, from what the index knows of its files or else from the files themselves.

        Args:
          identify: whether the job's spec hashes are needed, for which the whole photo is read.
            Otherwise its header is enough; hashes are known only if the index knows the photo.

        Raises:
          InputError, ConfigError: a file is missing, is no image, or is too small or too large; a
            setting is out of range.
        """
        config = self.configs.of(job)
        limits = _limits(config)
        look = self._index.facts if identify else self._index.known_facts
        content = look(job.content, **limits)
        header = content.header if content else self._index.header(job.content, **limits)
        paintings = {name: self._painting(name, config) for name in job.style_files}
        initial = self._initial(config)
        masks = {name: self._picture(name, config) for name, _ in job.masks}
        headers = {name: facts.header for name, facts in (paintings | masks).items()}
        size, sides, sources = _fit(job, config, header, headers, initial and initial.header)
        planned = PlannedJob(
            job,
            config.engine.name,
            size,
            tuple(_style_sha256(style, config, paintings) for style in job.styles),
            initial.sha256 if initial else "",
            tuple((name, facts.sha256) for name, facts in masks.items()),
            tuple(self._assets.items()),
            sides,
            sources,
        )
        if content is None:
            return planned
        return self._identities.identify(planned, config, content.sha256)

    def probe(self, job: Job) -> tuple[Size, Sources]:
        """Returns the result's size and what is read for it, from image headers only.

        Estimates of a run use it, as they hash no files.

        Raises:
          InputError, ConfigError: as `plan`, as far as headers tell.
        """
        config = self.configs.of(job)
        if config.engine.style_names:
            for name in job.style_files:
                self._painting(name, config)  # only its hash tells whether it was learned
        others = [*job.style_files, *(name for name, _ in job.masks)]
        headers = {name: self._header(name, config) for name in others}
        file = config.engine.initial_file
        initial = self._header(file, config) if file else None
        content = self._index.header(job.content, **_limits(config))
        size, _, sources = _fit(job, config, content, headers, initial)
        return size, sources

    def _initial(self, config: RunConfig) -> Facts | None:
        file = config.engine.initial_file
        if not file:
            return None
        try:
            return self._picture(file, config)
        except InputError as error:
            text = str(error).removeprefix(f"{error.path}: ")
            raise InputError(
                f"the picture to start from {text}", path=error.path, code=error.code
            ) from error

    def _painting(self, path: str, config: RunConfig) -> Facts:
        """Returns what a painting holds.

        Raises:
          InputError: it cannot be read, or is none that the engine can paint after.
        """
        engine = config.engine
        try:
            found = self._picture(path, config)
            engine.learned_style(found.sha256)
            return found
        except InputError as error:
            if not engine.style_names or (error.path and error.code != "unreadable"):
                raise
            text = str(error).removeprefix(f"{path}: ")
            names = ", ".join(engine.style_names)
            raise InputError(
                f"{text}; the engine {engine.name!r} has learned {names}",
                path=path,
                code=error.code,
            ) from error

    def _picture(self, path: str, config: RunConfig) -> Facts:
        """Returns what a painting or mask holds; looks it up once per run."""
        limits, key = _limits(config), (path, config.max_pixels)
        with self._lock:  # rows that share a painting wait for one read of it
            return _remembered(self._pictures, key, lambda: self._index.facts(path, **limits))

    def _header(self, path: str, config: RunConfig) -> Header:
        key = (path, config.max_pixels)
        return _remembered(self._headers, key, lambda: self._index.header(path, **_limits(config)))


def _style_sha256(style: StyleSource, config: RunConfig, paintings: Mapping[str, Facts]) -> str:
    if style.is_file:
        return paintings[style.name].sha256
    identity = config.engine.named_style(style.name)
    if identity is None:
        raise InputError(f"style: {short(style.name)} is none that the engine has")
    return identity


def _limits(config: RunConfig) -> dict[str, int]:
    return {"max_bytes": config.max_file_bytes, "max_pixels": config.max_pixels}


def _remembered(known: OrderedDict[Any, Any], key: Any, read: Callable[[], Any]) -> Any:
    found = known.get(key)
    if found is None:
        found = known[key] = read()
        if len(known) > _REMEMBERED:
            with contextlib.suppress(KeyError):  # another thread was faster
                known.popitem(last=False)
    return found


def _fit(
    job: Job,
    config: RunConfig,
    content: Header,
    others: Mapping[str, Header],
    initial: Header | None,
) -> tuple[Size, tuple[int, ...], Sources]:
    """Returns the result's size, the long side in px of each painting, and what is read for it.

    Args:
      others: of paintings and masks.

    Raises:
      InputError: too small for the engine, too large for the file's format, or a mask of another
        aspect than its image.
    """
    with _naming(job.content):
        size = config.engine.output_size(content.size)
        check_format(size, config.format)
    sides = []
    for path in job.style_files:
        with _naming(path):
            sides.append(config.engine.style_side(_trimmed(others[path].size, config), size))
    wanted = [
        (others[path], side) for path, side in zip(job.style_files, sides, strict=True) if side
    ]
    seen = [fit(header.size, side) for header, side in wanted]
    for mask, image in job.masks:
        own, whole = others[mask].size, (others.get(image) or content).size
        if not same_aspect(own, whole):
            raise InputError(
                f"a mask of {own[0]}x{own[1]} px, but {image} has {whole[0]}x{whole[1]} px, "
                "another aspect; draw the mask on the image itself, at any size",
                path=mask,
            )
        wanted.append((others[mask], max(size)))
    wanted += [(content, max(size))]
    wanted += [(initial, max(size))] if initial else []
    decoded = max(header.decoded_pixels(side) for header, side in wanted)
    largest = max(seen, key=math.prod, default=(0, 0))
    painted = sum(map(math.prod, seen))
    return size, tuple(sides), Sources(decoded, largest, painted, job.regions)


def _trimmed(size: Size, config: RunConfig) -> Size:
    """Returns the size of what is left of a painting's file, as far as that is known."""
    known = isinstance(config.trim, int)
    return fixed_margin(config.trim, size).inside(size) if known else size


@contextlib.contextmanager
def _naming(path: str) -> Iterator[None]:
    """Makes errors within the block name this file, unless they name one already."""
    try:
        yield
    except InputError as error:
        if error.path:
            raise
        raise InputError(str(error), path=path, code=error.code) from error
