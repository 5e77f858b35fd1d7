"""Neural style transfer on tensors: the method, without files to schedule or a pipeline to run.

    import nst_ops

    photo = nst_ops.decode(data, long_side=512).on_white()
    result = nst_ops.run(photo, [painting], nst_ops.Settings())

Every name below is imported on first use, so that a launcher which only needs `Settings` never
starts TensorFlow. docs/api.md describes them all.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "Checkpoint",
    "InputError",
    "Iterate",
    "Knobs",
    "NetworkFacts",
    "Painter",
    "Painting",
    "Picture",
    "Report",
    "Result",
    "Scale",
    "ScaleReport",
    "Settings",
    "Style",
    "StyleScale",
    "Styles",
    "TargetCache",
    "__version__",
    "decode",
    "encode",
    "load_checkpoint",
    "load_network",
    "run",
    "shrink",
    "stylize",
    "vgg19",
]

# The same names, and where they are found. Type checkers only understand a literal `__all__` and
# plain imports, so all three lists are here, and a test compares them.
_HOMES = {
    "Checkpoint": "nst_ops.coarse_to_fine.checkpoints",
    "InputError": "nst_ops.errors",
    "Iterate": "nst_ops.coarse_to_fine.iterates",
    "Knobs": "nst_ops.coarse_to_fine.iterates",
    "NetworkFacts": "nst_ops.network.facts",
    "Painter": "nst_ops.network.painter",
    "Painting": "nst_ops.images.inputs",
    "Picture": "nst_ops.images.codec",
    "Report": "nst_ops.coarse_to_fine.reports",
    "Result": "nst_ops.coarse_to_fine.reports",
    "Scale": "nst_ops.settings",
    "ScaleReport": "nst_ops.coarse_to_fine.reports",
    "Settings": "nst_ops.settings",
    "Style": "nst_ops.images.inputs",
    "StyleScale": "nst_ops.settings",
    "Styles": "nst_ops.images.inputs",
    "TargetCache": "nst_ops.losses.targets.cache",
    "decode": "nst_ops.images.codec",
    "encode": "nst_ops.images.codec",
    "load_checkpoint": "nst_ops.coarse_to_fine.checkpoints",
    "load_network": "nst_ops.network.model",
    "run": "nst_ops.coarse_to_fine.loop",
    "shrink": "nst_ops.images.codec",
    "stylize": "nst_ops.coarse_to_fine.loop",
    "vgg19": "nst_ops.vgg.network",
}

if TYPE_CHECKING:
    from nst_ops.coarse_to_fine.checkpoints import Checkpoint as Checkpoint
    from nst_ops.coarse_to_fine.checkpoints import load_checkpoint as load_checkpoint
    from nst_ops.coarse_to_fine.iterates import Iterate as Iterate
    from nst_ops.coarse_to_fine.iterates import Knobs as Knobs
    from nst_ops.coarse_to_fine.loop import run as run
    from nst_ops.coarse_to_fine.loop import stylize as stylize
    from nst_ops.coarse_to_fine.reports import Report as Report
    from nst_ops.coarse_to_fine.reports import Result as Result
    from nst_ops.coarse_to_fine.reports import ScaleReport as ScaleReport
    from nst_ops.errors import InputError as InputError
    from nst_ops.images.codec import Picture as Picture
    from nst_ops.images.codec import decode as decode
    from nst_ops.images.codec import encode as encode
    from nst_ops.images.codec import shrink as shrink
    from nst_ops.images.inputs import Painting as Painting
    from nst_ops.images.inputs import Style as Style
    from nst_ops.images.inputs import Styles as Styles
    from nst_ops.losses.targets.cache import TargetCache as TargetCache
    from nst_ops.network.facts import NetworkFacts as NetworkFacts
    from nst_ops.network.model import load_network as load_network
    from nst_ops.network.painter import Painter as Painter
    from nst_ops.settings import Scale as Scale
    from nst_ops.settings import Settings as Settings
    from nst_ops.settings import StyleScale as StyleScale
    from nst_ops.vgg.network import vgg19 as vgg19


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'nst_ops' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Returns all names, for completion, which asks for them before they are first used."""
    return sorted({*globals(), *__all__})
