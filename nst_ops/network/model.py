"""Painting networks as Keras models: made, saved and loaded.

A file is an ordinary `.keras` file, which Keras can open too, with one entry more: what is known of
the network (`facts`). Its weights may be stored in 16 bits, which changes no picture visibly.
"""

import io
import json
import os
import tempfile
import warnings
import zipfile
from collections.abc import Mapping

import h5py
import keras
import numpy as np
import tensorflow as tf

from nst_ops.atomic import replacing
from nst_ops.errors import InputError
from nst_ops.network.facts import ENTRY, NetworkFacts, read_network
from nst_ops.network.layers import ConditionalInstanceNorm, apply, make_layers
from nst_ops.network.thumbnails import entry_name

_WEIGHTS = "model.weights.h5"
_TOLD_BY_KERAS = "metadata.json"
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # so that the same network gives the same bytes


def make_network(styles: int, width: int, blocks: int, seed: int = 0) -> keras.Model:
    """Returns a new network, whose weights are random.

    Args:
      styles: how many styles it is to hold.
      width: channels at full size.
      blocks: residual blocks.
      seed: of the weights.

    Returns:
      A model from {"image": [B, H, W, 3], sRGB in [0, 1], sides multiples of 4; "style": [B,
      styles], weights with sum 1} to pictures [B, H, W, 3] in (0, 1).
    """
    layers = {layer.name: layer for layer in make_layers(styles, width, blocks, seed)}
    image = keras.Input((None, None, 3), name="image")
    style = keras.Input((styles,), name="style")

    def normalize(name: str, features: tf.Tensor) -> tf.Tensor:
        return layers[f"{name}_norm"](features, style)

    picture = apply(layers.__getitem__, blocks, normalize, image)
    return keras.Model({"image": image, "style": style}, picture, name="painter")


def add_styles(model: keras.Model, facts: NetworkFacts, count: int, seed: int = 0) -> keras.Model:
    """Returns a network that holds `count` more styles, which begin as the mean of those that there
    are.
    """
    known = len(facts.styles)
    larger = make_network(known + count, facts.width, facts.blocks, seed)
    for mine, theirs in zip(larger.layers, model.layers, strict=True):
        values = theirs.get_weights()
        if isinstance(mine, ConditionalInstanceNorm):
            values = [
                np.concatenate([value, np.repeat(value.mean(0, keepdims=True), count, axis=0)])
                for value in values
            ]
        mine.set_weights(values)
    return larger


def save_network(
    path: str,
    model: keras.Model,
    facts: NetworkFacts,
    *,
    thumbnails: Mapping[str, bytes] | None = None,
    half: bool = True,
) -> None:
    """Writes a network as a `.keras` file, whole or not at all.

    Args:
      path: of the file.
      model: as `make_network` gave it.
      facts: what is known of it.
      thumbnails: {style: its painting, as `thumbnail` gives it}.
      half: whether weights are stored in 16 bits.
    """
    with tempfile.TemporaryDirectory() as folder:
        plain = os.path.join(folder, "network.keras")
        model.save(plain)
        with zipfile.ZipFile(plain) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
    if half:
        entries[_WEIGHTS] = _in_16_bits(entries[_WEIGHTS])
    told = json.loads(entries[_TOLD_BY_KERAS])
    entries[_TOLD_BY_KERAS] = json.dumps({**told, "date_saved": ""}).encode()
    entries[ENTRY] = facts.to_json().encode()
    for number, name in enumerate(facts.names):
        if thumbnails and name in thumbnails:
            entries[entry_name(number)] = thumbnails[name]
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(entries.items()):
            archive.writestr(zipfile.ZipInfo(name, _LONG_AGO), data, zipfile.ZIP_DEFLATED)


def load_network(path: str) -> tuple[keras.Model, NetworkFacts]:
    """Returns a network and what is known of it.

    Args:
      path: of a `.keras` file that `nst train` wrote; or `embedded`, the package's own.

    Raises:
      InputError: it is not there, is damaged, or is no network of ours.
    """
    facts, data = read_network(path)
    model = make_network(len(facts.styles), facts.width, facts.blocks)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive, tempfile.TemporaryDirectory() as folder:
            _load_weights(model, archive.extract(_WEIGHTS, folder))
    except Exception as error:  # h5py raises KeyError and OSError, Keras ValueError
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"its weights do not fit the network that it says it is ({reason}); train it again",
            path=path,
        ) from error
    return model, facts


def _load_weights(model: keras.Model, path: str) -> None:
    """Loads all weights, or raises a ValueError. Keras itself leaves those alone that it does not
    find, and only warns.
    """
    for variable in model.variables:
        variable.assign(np.full(variable.shape, np.nan))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.load_weights(path)
    missing = [v.path for v in model.variables if not np.isfinite(v.numpy()).all()]
    if missing:
        raise ValueError(f"{missing[0]} is not there, or not finite")


def _in_16_bits(weights: bytes) -> bytes:
    """Returns an HDF5 file in which all arrays are float16."""
    result = io.BytesIO()
    with h5py.File(io.BytesIO(weights), "r") as before, h5py.File(result, "w") as after:

        def copy(name: str, entry: h5py.Group | h5py.Dataset) -> None:
            if isinstance(entry, h5py.Dataset):
                copied = after.create_dataset(name, data=np.asarray(entry, np.float16))
            else:
                copied = after.require_group(name)
            copied.attrs.update(entry.attrs)

        before.visititems(copy)
        after.attrs.update(before.attrs)
    return result.getvalue()
