"""Networks as TFLite files, for phones and single-board computers."""

import tempfile

import keras
import numpy as np
import tensorflow as tf

from nst_ops.export.graph import (
    GIVEN,
    IMAGE,
    MOMENTS,
    PICTURE,
    STYLE,
    USED,
    tile_by_tile,
    whole_picture,
)
from nst_ops.network.painter import Passes

PAINT, PAINT_TILE = "paint", "paint_tile"  # signatures


def to_tflite(model: keras.Model, *, int8: bool) -> bytes:
    """Returns a network as a TFLite file of dynamic height and width, with the signatures `paint`
    (see `graph.whole_picture`) and `paint_tile` (see `graph.tile_by_tile`).

    Args:
      model: as `load_network` gives it.
      int8: whether weights are stored in 8 bits and convolutions computed in them (dynamic-range
        quantisation); else weights are stored in 16 bits and nothing is lost.
    """
    with tempfile.TemporaryDirectory() as folder:
        # A converter that is given a function rather than an archive loses the weights.
        archive = keras.export.ExportArchive()
        archive.track(model)
        archive.add_endpoint(PAINT, whole_picture(model))
        archive.add_endpoint(PAINT_TILE, tile_by_tile(model))
        archive.write_out(folder, verbose=False)
        signatures = [PAINT, PAINT_TILE]
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=signatures)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if not int8:
            converter.target_spec.supported_types = [tf.float16]
        return converter.convert()


def tflite_passes(data: bytes, threads: int) -> Passes:
    """Returns a TFLite file as LiteRT, the runtime of phones, runs it."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=data, num_threads=threads)
    paint = interpreter.get_signature_runner(PAINT)
    paint_tile = interpreter.get_signature_runner(PAINT_TILE)
    none = np.zeros(paint_tile.get_input_details()[GIVEN]["shape"], np.float32)

    def run(image: tf.Tensor, style: tf.Tensor, moments: np.ndarray, used: float) -> dict:
        given = {GIVEN: moments, USED: np.array(used, np.float32)}
        return paint_tile(**{IMAGE: np.asarray(image), STYLE: np.asarray(style)}, **given)

    return Passes(
        lambda image, style: paint(**{IMAGE: np.asarray(image), STYLE: np.asarray(style)})[PICTURE],
        lambda image, style: run(image, style, none, 0.0)[MOMENTS],
        lambda image, style, moments: run(image, style, moments, 1.0)[PICTURE],
    )
