"""What is known of a network beside its weights, as it is read from its file without TensorFlow."""

import functools
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from typing import Any, NamedTuple

from nst_ops.errors import InputError, short

EMBEDDED = "embedded"  # stands for the network that comes with this package
ENTRY = "nst.json"  # of a `.keras` file, which is a ZIP archive
FORMAT = 1


class LearnedStyle(NamedTuple):
    """Names a style that a network has learned, and the painting that it was learned from."""

    name: str
    sha256: str  # of the painting's file


@dataclass(frozen=True)
class NetworkFacts:
    """Holds what is known of a network.

    Attributes:
      styles: in the order of the network's style weights.
      width: channels at full size.
      blocks: residual blocks.
      training: the settings that it was trained with, and how it went: plain values.
      licence: under which it may be used, for people.
      sha256: of its file; "" if it has none yet.
    """

    styles: tuple[LearnedStyle, ...]
    width: int
    blocks: int
    training: Mapping[str, Any] = field(default_factory=dict)
    licence: str = ""
    sha256: str = ""

    def to_json(self) -> str:
        """Returns all but the hash of the file in which the text will be."""
        values = {name: value for name, value in asdict(self).items() if name != "sha256"}
        styles = [style._asdict() for style in self.styles]
        return json.dumps({"format": FORMAT, **values, "styles": styles}, indent=1)

    @property
    def names(self) -> list[str]:
        """Returns the names of the styles."""
        return [style.name for style in self.styles]

    def find(self, name: str) -> LearnedStyle | None:
        """Returns the style of this name, or the only one whose name begins so; None if there is
        none.
        """
        exact = [style for style in self.styles if style.name == name]
        found = exact or [style for style in self.styles if name and style.name.startswith(name)]
        return found[0] if len(found) == 1 else None

    def learned_from(self, sha256: str) -> LearnedStyle | None:
        """Returns the style that was learned from the painting of this hash; None if there is
        none.
        """
        return next((style for style in self.styles if style.sha256 == sha256), None)

    def weights_of(self, blend: Sequence[tuple[str, float]]) -> list[float]:
        """Returns the weight of each style of the network, with sum 1.

        Args:
          blend: (name, or the beginning of one; weight) of each style in it.

        Raises:
          InputError: the network has no such style.
        """
        total = sum(weight for _, weight in blend)
        shares = dict.fromkeys(self.names, 0.0)
        for name, weight in blend:
            style = self.find(name)
            if style is None:
                raise InputError(
                    f"the network has no style {short(name)}; its styles are {', '.join(shares)}"
                )
            shares[style.name] += weight / total
        return list(shares.values())


def read_network(path: str) -> tuple[NetworkFacts, bytes]:
    """Returns the facts of a network, and its file.

    Args:
      path: of a `.keras` file that `nst train` wrote, or `embedded`.

    Raises:
      InputError: it is not there, is damaged, or is no network of ours.
    """
    if path == EMBEDDED:
        data = resources.files("nst_ops.network").joinpath("data/paintings.keras").read_bytes()
        return _facts(data, path), data
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise InputError(
            f"the network cannot be read ({error.strerror}); give a .keras file that `nst train` "
            f"wrote, or `{EMBEDDED}`",
            path=path,
            code="unreadable",
        ) from error
    return _facts(data, path), data


def network_facts(path: str) -> NetworkFacts:
    """Returns the facts of a network, as `read_network` does. A file that has not changed is read
    once.
    """
    if path == EMBEDDED:
        return _facts_once(path, ())
    try:
        status = os.stat(path)
    except OSError:
        return read_network(path)[0]  # raises
    return _facts_once(path, (status.st_size, status.st_mtime_ns, status.st_ino))


@functools.lru_cache(16)
def _facts_once(path: str, state: tuple[int, ...]) -> NetworkFacts:
    return read_network(path)[0]


def _facts(data: bytes, path: str) -> NetworkFacts:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            damaged = archive.testzip()
            if damaged:
                raise InputError(f"damaged at {damaged}; copy or train it again", path=path)
            if ENTRY not in archive.namelist():
                raise InputError(
                    "a Keras model, but none that `nst train` wrote: it does not say its styles",
                    path=path,
                )
            values = json.loads(archive.read(ENTRY))
    except InputError:
        raise
    except Exception as error:  # zipfile raises BadZipFile, zlib.error, NotImplementedError, ...
        raise InputError(
            f"damaged, or no network ({type(error).__name__}: {error}); give a .keras file that "
            "`nst train` wrote",
            path=path,
        ) from error
    try:
        if values["format"] != FORMAT:
            raise InputError(
                f"a network of format {short(values['format'])}; this version reads {FORMAT}: "
                "use the version that trained it, or train it again",
                path=path,
            )
        styles = tuple(LearnedStyle(str(s["name"]), str(s["sha256"])) for s in values["styles"])
        names = [style.name for style in styles]
        if not all(names) or len(set(names)) < len(names) or not names:
            raise ValueError("its styles need names, each another")
        width, blocks = int(values["width"]), int(values["blocks"])
        if width < 1 or blocks < 0:
            raise ValueError(f"width {width}, blocks {blocks}")
        return NetworkFacts(
            styles,
            width,
            blocks,
            dict(values["training"]),
            str(values["licence"]),
            hashlib.sha256(data).hexdigest(),
        )
    except InputError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"its {ENTRY} cannot be used ({error!r})", path=path) from error
