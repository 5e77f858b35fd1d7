"""A session of the engine `network`: loads the network once, and paints batches with it."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
import tensorflow as tf

from nst_ops.engines.base import Batch, NamedStyle, Painted, Plan, Resources, Step, stack
from nst_ops.errors import InputError
from nst_ops.images.inputs import Style
from nst_ops.network.facts import NetworkFacts, network_facts
from nst_ops.network.model import load_network
from nst_ops.network.painter import Painter
from nst_ops.vgg.precision import device_name

_TRIAL_SIDE = 512


class NetworkSession:
    """Implements `engines.base.Session`, where its methods are described.

    Args:
      network: the network's path, or `embedded`.
      strength: share of the network's picture in the result; the rest is the photo.
      resources: keep the network for later sessions.
    """

    def __init__(self, network: str, strength: float, resources: Resources):
        self._strength = strength
        self._painter, self._facts = _loaded_painter(network, resources)

    def stylize(
        self, batch: Batch, plan: Plan, *, resume: Callable[[], Any] | None = None
    ) -> Iterator[Step]:
        """Paints the batch part by part; a picture of up to 1024 px is one part."""
        started = last = time.perf_counter()
        photos = stack(batch.contents)
        style = self._weights(batch)
        pictures = photos
        with _out_of_memory():
            for painted, share in self._painter.paint_in_parts(photos, style):
                pictures, now = painted, time.perf_counter()
                if share < 1.0:
                    yield Step(f"{100 * share:.0f} % painted", now - last, share)
                last = now
        if self._strength < 1.0:
            pictures -= photos  # in place: they may be large
            pictures *= self._strength
            pictures += photos
        columns = {
            "seconds_paint": time.perf_counter() - started,
            "device": device_name(),
            "precision": "float32",
            "threads": tf.config.threading.get_intra_op_parallelism_threads() or os.cpu_count(),
        }
        yield Step("", 0.0, 1.0, pictures=[Painted(each, "", columns) for each in pictures])

    def retry(self, batch: Batch, plan: Plan, error: Exception) -> Plan | None:
        """Returns None: there is no other way."""
        return None

    def measure_speed(self) -> float:
        """Measures how many pixels are painted in a second."""
        photo = np.random.default_rng(0).random((1, _TRIAL_SIDE, _TRIAL_SIDE, 3), np.float32)
        style = [self._facts.weights_of([(self._facts.names[0], 1.0)])]
        self._painter.paint(photo, style)  # traces
        started = time.perf_counter()
        self._painter.paint(photo, style)
        return _TRIAL_SIDE**2 / (time.perf_counter() - started)

    def load_checkpoint(self, file: BinaryIO) -> tuple[Any, dict[str, Any]]:
        """Raises an InputError: this engine writes no checkpoints."""
        raise InputError("the engine `network` has no checkpoints")

    def paint(self, batch: Batch) -> list[np.ndarray]:
        """Returns the pictures of a batch at full strength, [H, W, 3] each."""
        with _out_of_memory():
            return list(self._painter.paint(stack(batch.contents), self._weights(batch)))

    def _weights(self, batch: Batch) -> list[list[float]]:
        """Returns the weight of each of the network's styles, for each picture."""
        hashes = batch.style_sha256 or [[""] * len(blend) for blend in batch.styles]
        return [self._weights_of(*each) for each in zip(batch.styles, hashes, strict=True)]

    def _weights_of(
        self, blend: Sequence[Style | NamedStyle], hashes: Sequence[str]
    ) -> list[float]:
        found = []
        for style, sha256 in zip(blend, hashes, strict=True):
            if isinstance(style, NamedStyle):
                found.append((style.name, style.weight))
            elif learned := self._facts.learned_from(sha256):
                found.append((learned.name, style.weight))
            else:
                raise InputError("is no painting that the network has learned")
        return self._facts.weights_of(found)


@contextlib.contextmanager
def _out_of_memory() -> Iterator[None]:
    """Turns TensorFlow's error into Python's."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise MemoryError(error.message) from None  # its frames would keep tensors in memory


def _loaded_painter(network: str, resources: Resources) -> tuple[Painter, NetworkFacts]:
    """Returns a network that is ready to paint, loaded once per process, and its facts."""
    sha256 = network_facts(network).sha256
    key = f"painter {sha256}"
    if key not in resources.shared:
        model, facts = load_network(network)
        if facts.sha256 != sha256:
            raise InputError("is being replaced; run again", path=network, code="changed")
        resources.shared[key] = Painter(model), facts
    return resources.shared[key]
