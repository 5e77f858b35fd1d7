"""The memory that a picture takes, and plans that stay below a limit.

The constants were measured (`python -m benchmarks memory` compares); the model is linear in pixels.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from nst_ops.engines.base import READ_AHEAD, Sources
from nst_ops.errors import InputError
from nst_ops.images.size import Size
from nst_ops.losses.octaves import MOST_ANSWERS, layers_in_use
from nst_ops.losses.tile_grid import PAINTING_TILE, largest_patch, side_for
from nst_ops.settings import HISTORY, Settings
from nst_ops.vgg.geometry import margin, vgg19_geometry
from nst_ops.vgg.precision import cpu_multiplies_bfloat16, cuda_is_installed
from nst_ops.vgg.weights import CHANNELS

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
_PAIR = 24  # bytes per px of a step in L-BFGS's history: s and y, 3 float32 each; half in tiles
_LEAST_HISTORY = 3
_DECODING = 22  # bytes per px of a file while it is decoded and shrunk, colour by colour
_MATCHED = 12  # bytes per px of the pictures that attention was matched with
_LISTED = 1  # bytes per px of the places of attention's targets
# Bytes per px of the picture for each region that masks make: the mask, and how much the positions
# of each layer count at each octave, 1.78 for a px.
_REGION = 12
_SIMILARITIES = 0.2e9  # bytes, of the similarities that attention computes at a time
_ANSWERS_HELD = 1.2  # features and keys of paintings take a fifth more than their numbers
_PAINTING = 28  # bytes per px of a painting and its octaves, float32
_SEEN = 850  # bytes per px of a painting's tile, whose features are not kept for a gradient
_TILES = (1024, 768, 512, 384, 256)


class MemoryPlan(NamedTuple):
    """Says how a batch is computed, and how much memory that is expected to take."""

    tile: int | None  # side in px; None: whole
    history: int  # steps that L-BFGS remembers; not used by Adam
    bytes: int  # expected peak of the process
    optimizer: str = "lbfgs"
    variant: str = ""  # "adam" where the settings ask for L-BFGS

    def __str__(self) -> str:
        how = "whole" if self.tile is None else f"in tiles of {self.tile} px"
        memory = f"{self.history} steps of history" if self.optimizer == "lbfgs" else "Adam"
        return f"{how}, {memory}, about {self.bytes / 1e9:.1f} GB"


def predict_bytes(
    size: Size,
    settings: Settings,
    *,
    batch: int = 1,
    tile: int | None = None,
    history: int = HISTORY,
    sources: Sources = Sources(),  # noqa: B008  # immutable
) -> int:
    """Predicts the peak memory of the process, in bytes, while a batch is read and optimized.

    Args:
      size: of each picture.
      batch: number of pictures.
      tile: side of tiles in px; None: pictures are computed whole.
      history: steps that L-BFGS remembers.
      sources: what has to be read.
    """
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
    regions = _REGION * sources.regions * pixels
    held, updating = held + regions, updating + regions
    matching = 0.0
    if values := _attention_values(settings):
        # Attention holds where its targets are in a list of the paintings' features, or else these
        # themselves; the pictures that were matched; and, in a cache, features of paintings.
        answers = values * number_bytes(settings.precision)
        listed = not (settings.attention_temperature or sources.regions)
        target = _LISTED if listed else answers
        painted = _answering_values(sources, settings)
        kept = number_bytes(settings.precision) * painted * (1 + batch * listed)
        more = (target + _MATCHED) * pixels + kept
        held, updating = held + more, updating + more
        # During the matching also what each position asks for, in float16, and the paintings' keys;
        # and, of whole pictures, features of photo and picture.
        asking = 2 * values + target + (3 * answers if side is None else 0.0)
        matching = (_HELD[kind] + remembered + _MATCHED + asking) * pixels + regions
        matching += _ANSWERS_HELD * (kept + 4 * painted) + _SIMILARITIES
    decoding = _DECODING * sources.decoded
    if sources.decoded <= READ_AHEAD:  # the next picture is decoded meanwhile
        held, updating = held + decoding, updating + decoding
    painting = _painting_bytes(sources.painting, settings) + (_HELD[kind] + remembered) * pixels / 4
    return round(_PROCESS + _WORKSPACE + max(held, updating, matching, decoding, painting))


def _attention_values(settings: Settings) -> float:
    """Returns how many numbers the attention layers in use have for a pixel of the picture."""
    strides = {layer: vgg19_geometry(layer).stride for layer in settings.attention_layers_in_use}
    return sum(CHANNELS[layer][1] / stride**2 for layer, stride in strides.items())


def _answering_values(sources: Sources, settings: Settings) -> float:
    """Returns how many numbers the positions of a blend's paintings have that can answer."""
    largest = max(1, math.prod(sources.painting))
    pixels = max(sources.paintings, largest)
    count = -(-pixels // largest)  # of paintings, at least
    found = 0.0
    for layer in settings.attention_layers_in_use:
        positions = pixels / vgg19_geometry(layer).stride ** 2
        found += min(positions, count * MOST_ANSWERS) * CHANNELS[layer][1]
    return found * len(settings.style_scales)


def _painting_bytes(size: Size, settings: Settings) -> float:
    """Returns the bytes that it takes to compute Gram matrices and moments of a painting."""
    side = side_for(size, PAINTING_TILE)
    pixels = size[0] * size[1]
    seen = pixels if side is None else _largest_patch(size, side, settings)
    return _PAINTING * pixels + _SEEN * seen


def _largest_patch(size: Size, side: int, settings: Settings) -> int:
    layers = layers_in_use(settings)
    return largest_patch(size, side, margin(map(vgg19_geometry, layers)))


def plan_memory(
    size: Size,
    settings: Settings,
    *,
    batch: int = 1,
    limit: float,
    tiling: str | int = "auto",
    sources: Sources = Sources(),  # noqa: B008  # immutable
) -> MemoryPlan:
    """Returns the fastest plan that stays below `limit` bytes.

    That is to compute the picture whole, else in the largest tiles that fit, with a shorter history
    if that helps, else with Adam, which remembers no steps. Several pictures at once are only
    computed whole: one by one is faster than all of them in tiles.

    Args:
      size: of each picture.
      batch: number of pictures at once.
      limit: peak memory of the process in bytes.
      tiling: `auto`, `off` or the side of tiles in px.
      sources: what has to be read.

    Raises:
      InputError: of code `memory`: no plan fits; the message says what would help.
    """
    wanted = {"auto": (None, *_TILES), "off": (None,)}.get(str(tiling), (tiling,))
    tiles = list(dict.fromkeys(side_for(size, tile) for tile in wanted))
    ways = _ways(tiles, settings.optimizer)
    least = limit
    for way in itertools.islice(ways, 1) if batch > 1 else ways:
        chosen = settings.model_copy(update={"optimizer": way.optimizer})
        needed = predict_bytes(
            size, chosen, batch=batch, tile=way.tile, history=way.history, sources=sources
        )
        if needed <= limit:
            variant = "" if way.optimizer == settings.optimizer else way.optimizer
            return way._replace(bytes=needed, variant=variant)
        least = needed
    remedies = ["a smaller size or batch_size", "a higher memory_limit"]
    if tiling != "auto":
        remedies.append("`tiling: auto`")
    raise InputError(
        f"{batch} of {size[0]}x{size[1]} px needs at least {least / 1e9:.1f} GB, more than the "
        f"{limit / 1e9:.1f} GB of memory_limit; use {', or '.join(remedies)}",
        code="memory",
    )


def _ways(tiles: Sequence[int | None], optimizer: str) -> Iterator[MemoryPlan]:
    """Yields plans from the fastest to the one that takes the least memory."""
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
    """Returns the bytes of one activation. For `auto`, it predicts what TensorFlow will find,
    without starting it.
    """
    if precision == "auto":
        return 2 if cuda_is_installed() or cpu_multiplies_bfloat16() else 4
    return 4 if precision == "float32" else 2
