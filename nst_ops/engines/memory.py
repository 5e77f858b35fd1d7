"""How much memory a picture takes, and what to do when that is too much.

The constants were measured (`python -m benchmarks memory` compares); the model is linear in pixels.
"""

import contextlib
import ctypes.util
import functools
import importlib.util
import math
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from nst_ops.errors import InputError
from nst_ops.images.size import Size
from nst_ops.losses.tile_grid import PAINTING_TILE, largest_patch, side_for
from nst_ops.settings import HISTORY, Settings
from nst_ops.vgg.geometry import margin, vgg19_geometry
from nst_ops.vgg.precision import cpu_multiplies_bfloat16

_PROCESS = 0.8e9  # bytes: Python, TensorFlow and the network's weights
# Bytes per px of the images that the network sees at once, by the bytes of a number. float32 was
# measured on two processors, whose libraries take 2400 and 3500.
_ACTIVATIONS = {2: 2000, 4: 3300}
_WORKSPACE = 0.1e9  # bytes, of the libraries, however small the picture
_RETAINED = 1200  # bytes per px of a tile that the libraries keep for the next one
# Bytes per px of the picture, while activations are there: photo, content features, optimizer.
_HELD = {"lbfgs": 100, "lbfgs in tiles": 100, "adam": 95, "adam in tiles": 85}
# The same while the optimizer computes, and activations are gone.
_UPDATING = {"lbfgs": 220, "lbfgs in tiles": 195, "adam": 165, "adam in tiles": 120}
_PAIR = 24  # of one step that L-BFGS remembers: move and bend, 3 float32 each; in tiles half of it
_LEAST_HISTORY = 3
_DECODING = 22  # bytes per px of a file that is decoded and shrunk, colour by colour
# The most px that are decoded while another picture is optimized: more take longer, but few files
# have so many, and of a JPEG no more is decoded than is needed.
READ_AHEAD = 4_000_000
_PAINTING = 28  # bytes per px of a painting and its octaves, float32
_SEEN = 850  # bytes per px of a painting's tile, whose features are not kept for a gradient
_TILES = (1024, 768, 512, 384, 256)
_CONTAINER = Path("/sys/fs/cgroup")


class MemoryPlan(NamedTuple):
    """What to compute with, and the peak that is expected."""

    tile: int | None
    history: int
    bytes: int
    optimizer: str = "lbfgs"

    def __str__(self) -> str:
        how = "whole" if self.tile is None else f"in tiles of {self.tile} px"
        memory = f"{self.history} steps of history" if self.optimizer == "lbfgs" else "Adam"
        return f"{how}, {memory}, about {self.bytes / 1e9:.1f} GB"


class Sources(NamedTuple):
    """What has to be read for a picture, as far as it takes memory."""

    decoded: int = 0  # px, of the largest file
    painting: Size = (0, 0)  # as the largest is seen

    def join(self, other: "Sources") -> "Sources":
        """Of both."""
        larger = max(self.painting, other.painting, key=math.prod)
        return Sources(max(self.decoded, other.decoded), larger)


def predict_bytes(
    size: Size,
    settings: Settings,
    *,
    batch: int = 1,
    tile: int | None = None,
    history: int = HISTORY,
    sources: Sources = Sources(),  # noqa: B008  # immutable
) -> int:
    """Peak memory of the process while a batch of this size is read and optimized."""
    pixels = batch * size[0] * size[1]
    octaves = sum(0.25**octave for octave in range(len(settings.octaves)))
    seen = pixels * octaves
    side = side_for(size, tile)
    if side is not None:
        seen = batch * _largest_patch(size, side, settings)
    lbfgs = settings.optimizer == "lbfgs"
    remembered = history * (_PAIR if side is None else _PAIR / 2) if lbfgs else 0.0
    kind = settings.optimizer if side is None else f"{settings.optimizer} in tiles"
    held = (
        _ACTIVATIONS[number_bytes(settings.precision)] * seen + (_HELD[kind] + remembered) * pixels
    )
    updating = (_UPDATING[kind] + remembered) * pixels + (0.0 if side is None else _RETAINED * seen)
    decoding = _DECODING * sources.decoded
    if sources.decoded <= READ_AHEAD:  # of the next picture, meanwhile
        held, updating = held + decoding, updating + decoding
    painting = _painting_bytes(sources.painting, settings) + (_HELD[kind] + remembered) * pixels / 4
    return round(_PROCESS + _WORKSPACE + max(held, updating, decoding, painting))


def _painting_bytes(size: Size, settings: Settings) -> float:
    """While Gram matrices of a painting are computed."""
    side = side_for(size, PAINTING_TILE)
    pixels = size[0] * size[1]
    seen = pixels if side is None else _largest_patch(size, side, settings)
    return _PAINTING * pixels + _SEEN * seen


def _largest_patch(size: Size, side: int, settings: Settings) -> int:
    layers = (*settings.content_layers, *settings.style_layers)
    return largest_patch(size, side, margin(map(vgg19_geometry, layers)))


def plan_memory(
    size: Size,
    settings: Settings,
    *,
    batch: int = 1,
    limit: int | None = None,
    tiling: str | int = "auto",
    sources: Sources = Sources(),  # noqa: B008  # immutable
) -> MemoryPlan:
    """The fastest way that stays below `limit` bytes.

    That is whole, else in the largest tiles that fit, with a shorter history if that helps, else
    with Adam, which remembers no steps.

    Args:
      limit: of the process; None: `default_limit()`.
      tiling: `auto`, `off` or a tile's side in px.
      sources: what has to be read.

    Raises:
      InputError: nothing fits; the message says what would help.
    """
    limit = default_limit() if limit is None else limit
    wanted = {"auto": (None, *_TILES), "off": (None,)}.get(str(tiling), (tiling,))
    tiles = list(dict.fromkeys(side_for(size, tile) for tile in wanted))
    least = limit
    for way in _ways(tiles, settings.optimizer):
        chosen = settings.model_copy(update={"optimizer": way.optimizer})
        needed = predict_bytes(
            size, chosen, batch=batch, tile=way.tile, history=way.history, sources=sources
        )
        if needed <= limit:
            return way._replace(bytes=needed)
        least = needed
    remedies = ["a smaller size or batch_size", "a higher memory_limit"]
    if tiling != "auto":
        remedies.append("`tiling: auto`")
    raise InputError(
        f"{batch} of {size[0]}x{size[1]} px needs at least {least / 1e9:.1f} GB, more than the "
        f"{limit / 1e9:.1f} GB of memory_limit; use {', or '.join(remedies)}"
    )


def _ways(tiles: Sequence[int | None], optimizer: str) -> Iterator[MemoryPlan]:
    """From the fastest to the least."""
    # A history of 5 was measured to be as good as one of 10; smaller tiles cost time.
    histories = (HISTORY, 5) if optimizer == "lbfgs" else (0,)
    for tile in tiles:
        for history in histories:
            yield MemoryPlan(tile, history, 0, optimizer)
    if optimizer == "lbfgs":
        yield MemoryPlan(tiles[-1], _LEAST_HISTORY, 0, optimizer)
        for tile in tiles:
            yield MemoryPlan(tile, 0, 0, "adam")


def number_bytes(precision: str) -> int:
    """Of an activation; for `auto` as TensorFlow will decide, without starting it."""
    if precision == "auto":
        return 2 if cuda_is_installed() or cpu_multiplies_bfloat16() else 4
    return 4 if precision == "float32" else 2


@functools.cache
def default_limit() -> int:
    """70 % of the memory that is free, in bytes: of the GPU, else of the container or machine.

    As it was when this process first asked: what it then takes is its own, and a picture should not
    be computed in another way because others came before it.
    """
    gpu = _free_gpu_bytes()
    return int(0.7 * (_free_bytes() if gpu is None else gpu))


@functools.cache  # the system's linker is asked, by processes of its own
def cuda_is_installed() -> bool:
    """Whether TensorFlow could use an NVIDIA GPU: a driver alone, as on any workstation, is not
    enough.
    """
    with contextlib.suppress(ModuleNotFoundError):  # none of NVIDIA's packages
        if importlib.util.find_spec("nvidia.cudnn"):
            return True
    return ctypes.util.find_library("cudnn") is not None


def _free_gpu_bytes() -> int | None:
    """Of the first GPU that this process may use; None without one.

    By the driver's own tool: TensorFlow tells what it has taken, not what there is.
    """
    if not cuda_is_installed():
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if visible in ("", "-1"):
        return None
    query = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run([*query, f"--id={visible}"], capture_output=True, timeout=20)
        return int(done.stdout.split()[0]) * 2**20
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired):  # no driver, no GPU
        return None


def _free_bytes() -> int:
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable"):
                free = int(line.split()[1]) * 1024
    except OSError:  # not Linux
        pass
    try:  # a container's own limit
        limit = (_CONTAINER / "memory.max").read_text().strip()
        if limit != "max":
            used = int((_CONTAINER / "memory.current").read_text())
            # Files that were read count as used, though they make room for whoever asks.
            facts = dict(map(str.split, (_CONTAINER / "memory.stat").read_text().splitlines()))
            cached = int(facts["inactive_file"]) + int(facts["active_file"])
            free = min(free, int(limit) - used + cached)
    except (OSError, ValueError, KeyError):
        pass
    return free
