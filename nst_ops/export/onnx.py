"""Networks as ONNX files, for onnxruntime on servers, desktops and in browsers."""

from typing import Any

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
from nst_ops.network.facts import NetworkFacts
from nst_ops.network.painter import Passes

_OPSET = 18
_SMALL = 64  # values; fewer are not worth a node of their own


def to_onnx(model: keras.Model, facts: NetworkFacts, *, tiles: bool = False) -> bytes:
    """Returns a network as an ONNX file of dynamic height and width.

    Weights that 16 bits hold exactly, as all of a saved network are, are stored so; runtimes make
    them 32 bits when they load the file.

    Args:
      model: as `load_network` gives it.
      facts: what is known of it; the file holds it as metadata, under `nst`.
      tiles: whether it can also paint a tile of a larger picture, see `graph.tile_by_tile`.
    """
    import tf2onnx

    function = tile_by_tile(model) if tiles else whole_picture(model)
    made, _ = tf2onnx.convert.from_function(
        function, input_signature=function.input_signature, opset=_OPSET
    )
    _store_in_16_bits(made.graph)
    entry = made.metadata_props.add()
    entry.key, entry.value = "nst", facts.to_json()
    return made.SerializeToString()


def onnx_passes(data: bytes, threads: int) -> Passes:
    """Returns an ONNX file as onnxruntime runs it on the CPU. One without tiles paints pictures up
    to `LARGEST_WHOLE` px.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    shapes = {entry.name: entry.shape for entry in session.get_inputs()}
    none = np.zeros(shapes[GIVEN], np.float32) if GIVEN in shapes else None

    def run(result: str, image: tf.Tensor, style: tf.Tensor, moments=none, used=0.0) -> np.ndarray:
        feeds = {IMAGE: np.asarray(image), STYLE: np.asarray(style)}
        if none is not None:
            feeds |= {GIVEN: moments, USED: np.array(used, np.float32)}
        return session.run([result], feeds)[0]

    return Passes(
        lambda image, style: run(PICTURE, image, style),
        lambda image, style: run(MOMENTS, image, style),
        lambda image, style, moments: run(PICTURE, image, style, moments, 1.0),
    )


def _store_in_16_bits(graph: Any) -> None:
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        small = values.astype(np.float16) if values.dtype == np.float32 else values
        if values.size < _SMALL or small.dtype == values.dtype or not np.array_equal(small, values):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(small, f"{name}_16"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    for place, cast in enumerate(casts):
        graph.node.insert(place, cast)
