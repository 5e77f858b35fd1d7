"""A size is `(height, width)` in px; the long side of one names a scale."""

Size = tuple[int, int]


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
