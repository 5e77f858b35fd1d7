"""The cache of what a network sees in paintings, in memory and on disk."""

import hashlib
import json
import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable

import tensorflow as tf

from nst_ops import archives
from nst_ops.atomic import replacing
from nst_ops.errors import InputError

Seen = dict[str, tf.Tensor]  # {layer: what is seen there}

# Of the files; raise it when the same painting would give other values.
_FORMAT = 3


class TargetCache:
    """Caches Gram matrices and moments of paintings, in memory and, if wanted, on disk; and, in
    memory only, their features for attention.

    Threads may share it, and processes and users may share the folder: files are named by all that
    their content depends on, appear whole, and carry a checksum.

    Args:
      max_bytes: of all tensors kept in memory; the least recently used go first. The Gram
        matrices of one painting at one resolution take 2.4 MB an octave with default layers.
      folder: where Gram matrices and moments are kept on disk as well; None: in memory only.
    """

    def __init__(self, max_bytes: int = 512 * 2**20, folder: str | None = None):
        self.max_bytes = max_bytes
        self.folder = folder
        self.bytes = 0
        self._entries: OrderedDict[Hashable, tuple[Seen, ...]] = OrderedDict()
        self._lock = threading.Lock()

    def get(
        self, key: Hashable, compute: Callable[[], tuple[Seen, ...]], name: str | None = None
    ) -> tuple[Seen, ...]:
        """Returns the entry of this key, and computes it if it is not cached.

        Args:
          key: identifies the entry in memory.
          compute: computes the entry, a dict for each octave that is looked at.
          name: of its file, without the extension; None: it is not kept on disk.
        """
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key]
        # Outside the lock: this takes seconds, and does no harm if two threads do it.
        path = os.path.join(self.folder, f"{name}.npz") if self.folder and name else None
        octaves = _load(path) if path else None
        if octaves is None:
            octaves = compute()
            if path:
                _save(path, octaves)
        with self._lock:
            if key not in self._entries:
                self._entries[key] = octaves
                self.bytes += _bytes(octaves)
            while self.bytes > self.max_bytes and len(self._entries) > 1:
                self.bytes -= _bytes(self._entries.popitem(last=False)[1])
        return octaves


def _load(path: str) -> tuple[Seen, ...] | None:
    try:
        with open(path, "rb") as file, archives.opened(file, "targets", _FORMAT) as (facts, arrays):
            if facts["name"] != os.path.basename(path):
                raise InputError(f"it is {facts['name']}, under another name")
            octaves: list[Seen] = [{} for _ in range(facts["octaves"])]
            for name in arrays:
                if name != "header":
                    octave, layer = name.split("/", 1)
                    octaves[int(octave)][layer] = tf.constant(arrays[name])
            return tuple(octaves)
    except FileNotFoundError:
        return None
    except (OSError, InputError) as error:
        warnings.warn(f"{path}: ignored: {error}; it is made again", stacklevel=3)
        return None


def _save(path: str, octaves: tuple[Seen, ...]) -> None:
    arrays = {
        f"{octave}/{layer}": values.numpy()
        for octave, seen in enumerate(octaves)
        for layer, values in seen.items()
    }
    try:
        with replacing(path, sync=False) as file:
            facts = {"octaves": len(octaves), "name": os.path.basename(path)}
            archives.write(file, "targets", _FORMAT, facts, arrays)
    except OSError as error:
        # A cache that cannot be written costs time, not the picture.
        warnings.warn(f"{path}: target not cached: {error}", stacklevel=3)


def _bytes(octaves: tuple[Seen, ...]) -> int:
    tensors = [tensor for seen in octaves for tensor in seen.values()]
    return sum(tensor.dtype.size * tensor.shape.num_elements() for tensor in tensors)


def file_name(network: str, *parts: object) -> str | None:
    """Returns the name of a cache file, a hash of all that its content depends on; None for a
    network that has no name, and so cannot be told from others in another process.

    Args:
      network: identifies the network; "" if it has no name.
      parts: plain values, which JSON can hold.
    """
    if not network:
        return None
    text = json.dumps([_FORMAT, network, *parts])
    return hashlib.sha256(text.encode()).hexdigest()
