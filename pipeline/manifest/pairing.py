"""Makes manifests from files: pairs photos with paintings, and names the results."""

import csv
import functools
import glob
import hashlib
import heapq
import io
import itertools
import json
import os
import re
import string
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nst_ops.errors import InputError
from pipeline.store import files

_FIELDS = ("content_dir", "content_stem", "style_stem")  # of --name


def make_manifest(
    contents: str,
    styles: str,
    *,
    pair: str = "product",
    seed: int = 0,
    name: str | None = None,
    folder: str = ".",
    warn: Callable[[str], object] = warnings.warn,
) -> list[dict[str, str]]:
    """Pairs the files of two globs, and returns a manifest's rows.

    Args:
      contents, styles: globs; `**` matches whole trees.
      pair: `product` (every photo with every painting), `zip` (one to one, in sorted order) or
        `random:N` (N different paintings for each photo).
      seed: of `random:N`. Whether a pair is drawn depends on its own paths: other photos do not
        change a photo's paintings, and a new painting replaces one of them at most.
      name: template of the output's name: {content_dir} (relative to the glob's fixed part),
        {content_stem}, {style_stem}.
      folder: where the manifest will be; paths are written relative to it.
      warn: is called with a message for each file that is left out because its name is not UTF-8.

    Raises:
      InputError: a glob matches nothing, unknown pairing or template field, unequal numbers for
        `zip`.
    """
    template = None if name is None else _template(name)
    photos, paintings = (
        [os.path.relpath(path, folder) for path in _matches(*given)]
        for given in ((contents, "--content"), (styles, "--style"))
    )
    drawn = re.fullmatch(r"random:0*([1-9][0-9]{0,8})", pair)
    not_utf8 = [path for path in dict.fromkeys([*photos, *paintings]) if not _is_text(path)]
    for path in not_utf8:
        shown = os.fsencode(path).decode(errors="backslashreplace")
        warn(f"left out {shown}: its name is not UTF-8, which a manifest must be; rename the file")
    if pair != "zip":  # `zip` drops them later, with their partners: else later pairs would shift
        photos, paintings = (
            [path for path in paths if _is_text(path)] for paths in (photos, paintings)
        )
    if pair == "product":
        pairs = list(itertools.product(photos, paintings))
    elif pair == "zip":
        if len(photos) != len(paintings):
            raise InputError(
                f"--pair zip: {len(photos)} photos but {len(paintings)} paintings; they must be "
                "as many"
            )
        pairs = [both for both in zip(photos, paintings, strict=True) if all(map(_is_text, both))]
    elif drawn:
        number = min(int(drawn[1]), len(paintings))
        pairs = [
            (photo, painting)
            for photo in photos
            for painting in heapq.nsmallest(
                number, paintings, key=functools.partial(_draw, seed, photo)
            )
        ]
    else:
        raise InputError(f"--pair {pair}: expected product, zip or random:N, N from 1 on")
    if not pairs:
        raise InputError("no pair is left of files whose names are UTF-8; rename the files")
    root = os.path.relpath(_fixed_part(contents), folder)
    rows = []
    for photo, painting in pairs:
        row = {"content": photo, "style": painting}
        if template is not None:
            fields = {
                "content_dir": os.path.relpath(os.path.dirname(photo) or ".", root),
                "content_stem": Path(photo).stem,
                "style_stem": Path(painting).stem,
            }
            filled = "".join(literal + fields.get(field, "") for literal, field in template)
            # File names may hold control characters, an `output` may not.
            row["output"] = os.path.normpath(re.sub(r"[\x00-\x1f]", "_", filled))
        rows.append(row)
    return rows


def write_manifest(rows: Sequence[Mapping[str, Any]], path: str) -> None:
    """Writes rows as CSV or, by the extension .jsonl, as JSON Lines."""
    if not path.endswith((".csv", ".tsv", ".jsonl", ".ndjson")):
        raise InputError("a manifest's name must end in .csv, .tsv or .jsonl", path=path)
    text = io.StringIO()
    if path.endswith((".jsonl", ".ndjson")):
        text.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        delimiter = "\t" if path.endswith(".tsv") else ","
        writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
        quoting = csv.writer(text, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)
        for cells in (list(rows[0]), *(list(row.values()) for row in rows)):
            # Python's writer quotes only its own line terminator; a bare \r must be quoted too.
            (quoting if "\r" in "".join(cells) else writer).writerow(cells)
    try:
        data = text.getvalue().encode()
    except UnicodeEncodeError as error:
        name = text.getvalue()[: error.end].splitlines()[-1]
        raise InputError(f"{name!r}: a file's name is not valid UTF-8; rename it") from error
    files.write(path, data)


def _template(name: str) -> list[tuple[str, str]]:
    """Splits --name into (literal text, the field behind it or "")."""
    try:
        parts = list(string.Formatter().parse(name))
    except ValueError as error:  # an unpaired brace
        raise InputError(f"--name {name}: {error}; fields are {_in_braces()}") from error
    for _, field, spec, conversion in parts:
        if field is not None and (field not in _FIELDS or spec or conversion):
            # Formats are of no use in names, and a width of a billion would fill the memory.
            raise InputError(f"--name {name}: fields are {_in_braces()}, without a format")
    return [(literal, field or "") for literal, field, _, _ in parts]


def _in_braces() -> str:
    return ", ".join(f"{{{field}}}" for field in _FIELDS)


def _is_text(path: str) -> bool:
    """Says whether a path can be written as UTF-8; Linux takes any bytes for a name."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _draw(seed: int, photo: str, painting: str) -> bytes:
    """Returns a pair's place in the drawing: the pairs with the smallest values are taken."""
    return hashlib.sha256(f"{seed}:{photo}:{painting}".encode(errors="surrogateescape")).digest()


def _matches(pattern: str, option: str) -> list[str]:
    found = sorted(p for p in glob.glob(pattern, recursive=True) if os.path.isfile(p))
    if not found:
        raise InputError(
            f"{option} {pattern}: matches no file; quote the glob so that the shell leaves it alone"
        )
    return found


def _fixed_part(pattern: str) -> str:
    """Returns the folder before a glob's first wildcard."""
    parts = Path(pattern).parts
    fixed = list(itertools.takewhile(lambda part: not glob.has_magic(part), parts))
    return str(Path(*(fixed[:-1] if len(fixed) == len(parts) else fixed)))
