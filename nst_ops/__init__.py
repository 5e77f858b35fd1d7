"""Neural style transfer on tensors: the method, without files to schedule or a pipeline to run.

    import nst_ops

    photo = nst_ops.decode(data, long_side=512).on_white()
    result = nst_ops.run(photo, [painting], nst_ops.Settings())

Every name below is imported on first use, so that a launcher which only needs `Settings` never
starts TensorFlow.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "InputError": "nst_ops.errors",
    "Knobs": "nst_ops.coarse_to_fine.iterates",
    "Settings": "nst_ops.settings",
    "Style": "nst_ops.images.inputs",
    "TargetCache": "nst_ops.losses.targets",
    "decode": "nst_ops.images.codec",
    "encode": "nst_ops.images.codec",
    "run": "nst_ops.coarse_to_fine.loop",
    "shrink": "nst_ops.images.codec",
    "stylize": "nst_ops.coarse_to_fine.loop",
    "vgg19": "nst_ops.vgg.network",
}
__all__ = ["__version__", *_HOMES]

if TYPE_CHECKING:
    from nst_ops.coarse_to_fine.iterates import Knobs as Knobs
    from nst_ops.coarse_to_fine.loop import run as run
    from nst_ops.coarse_to_fine.loop import stylize as stylize
    from nst_ops.errors import InputError as InputError
    from nst_ops.images.codec import decode as decode
    from nst_ops.images.codec import encode as encode
    from nst_ops.images.codec import shrink as shrink
    from nst_ops.images.inputs import Style as Style
    from nst_ops.losses.targets import TargetCache as TargetCache
    from nst_ops.settings import Settings as Settings
    from nst_ops.vgg.network import vgg19 as vgg19


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'nst_ops' has no attribute {name!r}")
