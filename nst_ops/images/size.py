"""A size is `(height, width)` in px; the long side of one names a scale."""

Size = tuple[int, int]

_ASPECT_TOLERANCE = 0.02


def fit(size: Size, long_side: int, *, enlarge: bool = False) -> Size:
    """Returns the size with that long side and the same aspect. It is never larger than `size`,
    unless `enlarge` is set.
    """
    height, width = size
    longest = max(height, width)
    if longest <= long_side and not enlarge:
        return size
    return (
        max(1, round(height * long_side / longest)),
        max(1, round(width * long_side / longest)),
    )


def same_aspect(one: Size, other: Size) -> bool:
    """Tells whether two images show the same frame: height by width differs by at most 2 %, and
    what rounding to whole px may make of it.
    """
    tolerance = _ASPECT_TOLERANCE + 0.5 / min(one) + 0.5 / min(other)
    ratio = (one[0] * other[1]) / (one[1] * other[0])
    return 1.0 / (1.0 + tolerance) <= ratio <= 1.0 + tolerance
