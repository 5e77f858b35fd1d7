"""The arguments of `stylize`, checked and brought into one form."""

import functools
import hashlib
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nst_ops.errors import InputError, short
from nst_ops.images.size import Size, same_aspect
from nst_ops.settings import LEAST_SHARE, MOST_SHARE

_ROUNDING = 1e-3  # outside [0, 1], left by resampling or half precision: clipped, not refused


@dataclass(frozen=True, eq=False)
class Style:
    """Holds one painting of a blend.

    Attributes:
      image: [h, w, 3] float32, sRGB in [0, 1], of any size. It must not be changed later.
      weight: its share beside the blend's other paintings, 1e-6 to 1e6.
      photo_mask: where in the photo its strokes go, [h, w] float32 in [0, 1], 1: here. It has the
        photo's aspect, at any size. None: where no other painting's mask is, or everywhere.
      painting_mask: which part of the painting its strokes come from, likewise with the painting's
        aspect. None: all of it.
    """

    image: np.ndarray
    weight: float = 1.0
    photo_mask: np.ndarray | None = None
    painting_mask: np.ndarray | None = None

    @functools.cached_property
    def pixels_digest(self) -> str:
        """Returns the SHA-256 of the pixels and their shape, in hex, computed only once."""
        return _sha256(self.image)

    @functools.cached_property
    def digest(self) -> str:
        """Returns what identifies the strokes that may be taken from it: of its pixels, and of its
        own mask if it has one.
        """
        if self.painting_mask is None:
            return self.pixels_digest
        return f"{self.pixels_digest} {_sha256(self.painting_mask)}"

    @functools.cached_property
    def photo_digest(self) -> str:
        """Returns the SHA-256 of the photo's mask, in hex; "" if there is none."""
        return "" if self.photo_mask is None else _sha256(self.photo_mask)

    def placed(
        self,
        weight: float,
        photo_mask: np.ndarray | None = None,
        painting_mask: np.ndarray | None = None,
    ) -> "Style":
        """Returns the same painting with another weight and other masks; its pixels are not hashed
        again.
        """
        other = Style(self.image, weight, photo_mask, painting_mask)
        other.__dict__["pixels_digest"] = self.pixels_digest
        return other


def _sha256(values: np.ndarray) -> str:
    values = np.ascontiguousarray(values)
    found = hashlib.sha256(str(values.shape).encode())
    found.update(values)
    return found.hexdigest()


Painting = np.ndarray | Style | tuple[np.ndarray, float]
"""One painting: its pixels [h, w, 3], sRGB in [0, 1], which count as weight 1; a pair (pixels,
weight); or a `Style`, which may also have masks."""

Styles = np.ndarray | Style | Sequence[Painting | Sequence[Painting]]
"""What a batch of B photos is painted after: a list of B entries, each a `Painting` or a list of
paintings to blend. Arrays [B, h, w, 3] are B paintings. For one photo, the painting or `Style` by
itself will do."""


def image_batch(images: Any, name: str, count: int | None = None) -> np.ndarray:
    """Returns images as [B, H, W, 3] float32 in [0, 1]; an array that already is one is not copied.

    Args:
      images: [B, H, W, 3], or one, [H, W, 3].
      name: what errors call them.
      count: how many there must be; None: any number.

    Raises:
      InputError: they are no such images, or not as many.
    """
    try:
        batch = np.asarray(images, np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: no array of numbers ({error}); expected [B, H, W, 3]") from error
    batch = batch[None] if batch.ndim == 3 else batch
    if batch.ndim != 4 or batch.shape[-1] != 3:
        raise InputError(f"{name} has shape {batch.shape}; expected [B, H, W, 3] or [H, W, 3]")
    if not batch.size:
        raise InputError(f"{name} has shape {batch.shape}: nothing to stylize")
    if count is not None and len(batch) != count:
        raise InputError(f"{count} photos but {len(batch)} of {name}; give one per photo")
    low, high = batch.min(), batch.max()
    if not (low >= -_ROUNDING and high <= 1.0 + _ROUNDING):  # also false for NaN
        raise InputError(
            f"{name} has values from {low:g} to {high:g}; expected sRGB in [0, 1] (divide 8-bit by "
            "255)"
        )
    return batch if low >= 0.0 and high <= 1.0 else np.clip(batch, 0.0, 1.0)


def style_blends(styles: Styles, count: int) -> list[list[Style]]:
    """Returns a blend of paintings for each of `count` photos.

    Args:
      styles: see `Styles`.
      count: how many photos there are.

    Raises:
      InputError: it is something else, an image is none, or a weight is out of range.
    """
    given: Any = [styles] if isinstance(styles, Style) or _is_image(styles) else styles
    if not _is_sequence(given):
        raise InputError(
            f"styles: {short(styles)} is no list; give one painting or blend per photo"
        )
    if len(given) != count:
        raise InputError(
            f"{count} photos but {len(given)} styles; give one painting or blend per photo"
        )
    return [_blend(entry) for entry in given]


def keep_masks(
    keep: "np.ndarray | Sequence[np.ndarray | None] | None", count: int
) -> list[np.ndarray | None]:
    """Returns for each of `count` photos where it stays as it is, [h, w] in [0, 1]; None: nowhere.

    Args:
      keep: a mask or None for each photo; for one photo the mask itself will do.
      count: how many photos there are.

    Raises:
      InputError: they are no masks, or not as many as photos.
    """
    if keep is None:
        return [None] * count
    given: Any = [keep] if len(getattr(keep, "shape", ())) == 2 else keep
    if not isinstance(given, list | tuple) and len(getattr(given, "shape", ())) != 3:
        raise InputError(f"keep: {short(keep)} is no mask [h, w] and no list of masks")
    if len(given) != count:
        raise InputError(f"{count} photos but {len(given)} of keep; give a mask or None per photo")
    return [None if mask is None else mask_array(mask, "keep") for mask in given]


def mask_array(mask: Any, name: str) -> np.ndarray:
    """Returns a mask as [h, w] float32 in [0, 1].

    Raises:
      InputError: it is none.
    """
    try:
        values = np.asarray(mask, np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: no array of numbers ({error}); expected [h, w]") from error
    if values.ndim != 2 or not values.size:
        raise InputError(f"{name} has shape {values.shape}; expected a mask [h, w]")
    low, high = values.min(), values.max()
    if not (low >= -_ROUNDING and high <= 1.0 + _ROUNDING):  # also false for NaN
        raise InputError(
            f"{name} has values from {low:g} to {high:g}; expected 0 to 1 (divide 8-bit by 255)"
        )
    return np.clip(values, 0.0, 1.0)


def check_aspect(mask: np.ndarray, image: Size, name: str) -> None:
    """Checks that a mask shows the same frame as the image that it is for.

    Raises:
      InputError: its aspect is another.
    """
    own: Size = mask.shape[0], mask.shape[1]
    if not same_aspect(own, image):
        raise InputError(
            f"{name} has {own[0]}x{own[1]} px, another aspect than its image's "
            f"{image[0]}x{image[1]}; cut or draw it on the image itself, at any size"
        )


def photo_seeds(seeds: Sequence[int] | np.ndarray | None, count: int, default: int) -> list[int]:
    """Returns one seed per photo: the given ones, or else the default for each.

    Raises:
      InputError: they are not as many as photos, or not whole numbers of at least 0.
    """
    if seeds is None:
        return [default] * count
    found = np.asarray(seeds)
    if found.shape != (count,) or found.dtype.kind not in "iu" or found.min() < 0:
        raise InputError(
            f"seeds: {short(seeds)} for {count} photos; give one whole number of at least 0 each"
        )
    return [int(seed) for seed in found]


def _blend(entry: Any) -> list[Style]:
    if isinstance(entry, Style) or _is_image(entry) or _is_weighted(entry):
        return [_style(entry)]
    if not _is_sequence(entry) or not len(entry):
        raise InputError(
            f"styles: {short(entry)} is no painting [h, w, 3], Style(image, weight) or list of "
            "these"
        )
    return [_style(each) for each in entry]


def _style(entry: Any) -> Style:
    if _is_weighted(entry):
        style = Style(*entry)
    else:
        style = entry if isinstance(entry, Style) else Style(entry)
    weight = style.weight
    if not isinstance(weight, numbers.Real) or not LEAST_SHARE <= weight <= MOST_SHARE:
        raise InputError(
            f"a style has weight {short(weight)}; expected a number above 0, from {LEAST_SHARE:g} "
            f"to {MOST_SHARE:g}"
        )
    if len(getattr(style.image, "shape", ())) != 3:
        shape = getattr(style.image, "shape", short(style.image))
        raise InputError(f"a style has shape {shape}; expected [h, w, 3]")
    image = image_batch(style.image, "a style", count=1)[0]
    photo_mask, painting_mask = style.photo_mask, style.painting_mask
    if photo_mask is not None:
        photo_mask = mask_array(photo_mask, "a style's photo_mask")
    if painting_mask is not None:
        painting_mask = mask_array(painting_mask, "a style's painting_mask")
        check_aspect(painting_mask, image.shape[:2], "a style's painting_mask")
        if not painting_mask.any():
            raise InputError("a style's painting_mask is black; make white what is to be painted")
    # The given object may know its digest already; it is kept only if nobody can change its pixels.
    same = isinstance(style.image, np.ndarray) and np.may_share_memory(image, style.image)
    if not same or style.image.flags.writeable:
        return Style(image, float(weight), photo_mask, painting_mask)
    unmasked = photo_mask is None and painting_mask is None
    return style if unmasked else style.placed(weight, photo_mask, painting_mask)


def _is_image(value: Any) -> bool:
    return not isinstance(value, list | tuple) and len(getattr(value, "shape", ())) in (2, 3)


def _is_weighted(value: Any) -> bool:
    pair = isinstance(value, list | tuple) and len(value) == 2
    return pair and isinstance(value[1], numbers.Real)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, list | tuple) or len(getattr(value, "shape", ())) == 4
