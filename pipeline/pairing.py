"""Makes manifests from files: which photo meets which painting, and what the result is called."""

import csv
import functools
import glob
import hashlib
import heapq
import io
import itertools
import json
import os
from pathlib import Path

from nst_ops.errors import InputError
from pipeline import files


def make_manifest(
    contents: str,
    styles: str,
    *,
    pair: str = "product",
    seed: int = 0,
    name: str | None = None,
    folder: str = ".",
) -> list[dict[str, str]]:
    """Rows that pair the files of two globs.

    Args:
      contents, styles: globs, `**` for whole trees.
      pair: `product` (every photo with every painting), `zip` (one to one, in sorted order) or
        `random:N` (N different paintings for each photo).
      seed: of `random:N`. A pair is taken by its own paths: other photos do not change it, and a
        new painting only takes the place of one where it is drawn.
      name: template of the output's name: {content_dir} (relative to the glob's fixed part),
        {content_stem}, {style_stem}.
      folder: where the manifest will be: paths are written relative to it.

    Raises:
      InputError: a glob matches nothing, unknown pairing or template field, unequal numbers for
        `zip`.
    """
    photos, paintings = (
        [os.path.relpath(path, folder) for path in _matches(*given)]
        for given in ((contents, "--content"), (styles, "--style"))
    )
    if pair == "product":
        pairs = list(itertools.product(photos, paintings))
    elif pair == "zip":
        if len(photos) != len(paintings):
            raise InputError(
                f"--pair zip: {len(photos)} photos but {len(paintings)} paintings; they must be "
                "as many"
            )
        pairs = list(zip(photos, paintings, strict=True))
    elif pair.startswith("random:") and pair[7:].isdigit() and int(pair[7:]) >= 1:
        number = min(int(pair[7:]), len(paintings))
        pairs = [
            (photo, painting)
            for photo in photos
            for painting in heapq.nsmallest(
                number, paintings, key=functools.partial(_draw, seed, photo)
            )
        ]
    else:
        raise InputError(f"--pair {pair}: expected product, zip or random:N")
    root = os.path.relpath(_fixed_part(contents), folder)
    rows = []
    for photo, painting in pairs:
        row = {"content": photo, "style": painting}
        if name is not None:
            fields = {
                "content_dir": os.path.relpath(os.path.dirname(photo) or ".", root),
                "content_stem": Path(photo).stem,
                "style_stem": Path(painting).stem,
            }
            try:
                row["output"] = os.path.normpath(name.format(**fields))
            except (KeyError, IndexError, ValueError) as error:
                raise InputError(
                    f"--name {name}: fields are {', '.join(fields)} in braces"
                ) from error
        rows.append(row)
    return rows


def write_manifest(rows: list[dict[str, str]], path: str) -> None:
    """Writes rows as CSV or, by the extension .jsonl, as JSON Lines."""
    if not path.endswith((".csv", ".tsv", ".jsonl", ".ndjson")):
        raise InputError("a manifest's name must end in .csv, .tsv or .jsonl", path=path)
    text = io.StringIO()
    if path.endswith((".jsonl", ".ndjson")):
        text.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        delimiter = "\t" if path.endswith(".tsv") else ","
        writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    try:
        data = text.getvalue().encode()
    except UnicodeEncodeError as error:
        name = text.getvalue()[: error.end].splitlines()[-1]
        raise InputError(f"{name!r}: a file's name is not valid UTF-8; rename it") from error
    files.write(path, data)


def _draw(seed: int, photo: str, painting: str) -> bytes:
    """The lot of a pair."""
    return hashlib.sha256(f"{seed}:{photo}:{painting}".encode(errors="surrogateescape")).digest()


def _matches(pattern: str, option: str) -> list[str]:
    found = sorted(p for p in glob.glob(pattern, recursive=True) if os.path.isfile(p))
    if not found:
        raise InputError(
            f"{option} {pattern}: matches no file; quote the glob so that the shell leaves it alone"
        )
    return found


def _fixed_part(pattern: str) -> str:
    """The folder before a glob's first wildcard."""
    parts = Path(pattern).parts
    fixed = list(itertools.takewhile(lambda part: not glob.has_magic(part), parts))
    return str(Path(*(fixed[:-1] if len(fixed) == len(parts) else fixed)))
