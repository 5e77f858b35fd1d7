"""What is to be trained, and on what: checked before anything begins."""

import glob
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic

from nst_ops.errors import InputError
from nst_ops.network.facts import EMBEDDED, LearnedStyle, NetworkFacts, network_facts
from nst_ops.training.settings import TrainingSettings
from nst_ops.vgg.weights import load_weights
from pipeline.config.loading import explain, read_values
from pipeline.errors import ConfigError
from pipeline.store import files

EXTENSION = ".keras"
_MOST_STYLES = 1000


@dataclass(frozen=True)
class TrainingPlan:
    """Says what is to be trained.

    Attributes:
      settings: of the training.
      photos: paths to train on.
      paintings: {name of the style: path}.
      styles: the same with the hashes of the files.
      output: path of the network.
      base: path of the network that learns more styles; "" if a new one is made.
      known: what is known of that; None for a new one.
    """

    settings: TrainingSettings
    photos: Sequence[str]
    paintings: Mapping[str, str]
    styles: Sequence[LearnedStyle]
    output: str
    base: str = ""
    known: NetworkFacts | None = None

    @property
    def folder(self) -> Path:
        """Returns the folder of checkpoints and samples, which lies beside the network."""
        return Path(self.output.removesuffix(EXTENSION) + ".training")

    @property
    def identity(self) -> dict[str, Any]:
        """Returns what a checkpoint must agree with to be gone on with."""
        photos = hashlib.sha256(json.dumps(list(self.photos)).encode()).hexdigest()[:16]
        return {
            "settings": self.settings.lasting
            | {"weights": load_weights(self.settings.weights).sha256},
            "photos": [len(self.photos), photos],
            "styles": [list(style) for style in self.styles],
            "base": self.known.sha256 if self.known else "",
        }


def load_settings(path: str | None, overrides: Iterable[str] = ()) -> TrainingSettings:
    """Reads the settings of a training from a YAML file, if one is given, and applies overrides.

    Raises:
      ConfigError: they cannot be used; it has all problems.
    """
    values = read_values(path, overrides)
    try:
        return TrainingSettings.model_validate(values)
    except pydantic.ValidationError as error:
        known = TrainingSettings.model_fields
        raise ConfigError(
            *(f"{path or '--set'}: {explain(problem, known)}" for problem in error.errors())
        ) from error


def plan_training(
    settings: TrainingSettings,
    contents: Sequence[str],
    styles: Sequence[str],
    output: str,
    base: str | None = None,
) -> TrainingPlan:
    """Finds the files of a training, and checks all that can be checked without TensorFlow.

    Args:
      settings: of the training.
      contents: globs of photos; `**` matches whole trees.
      styles: globs of paintings, whose names become those of the styles.
      output: path of the network.
      base: path of a network that is to learn these styles too, or `embedded`; None: a new one is
        made.

    Raises:
      InputError: a glob matches nothing, two paintings have one name, or the output cannot be.
    """
    if not output.endswith(EXTENSION):
        raise InputError(f"-o {output}: a network's name ends in {EXTENSION}")
    if files.is_url(output):
        raise InputError("nst train writes local files", path=output)
    output = os.path.abspath(output)
    own = TrainingPlan(settings, (), {}, (), output)
    photos, paths = (
        _matches(patterns, option, own)
        for patterns, option in ((contents, "--content"), (styles, "--style"))
    )
    if len(paths) > _MOST_STYLES:
        raise InputError(f"--style: {len(paths)} paintings; at most {_MOST_STYLES}")
    paintings: dict[str, str] = {}
    for path in paths:
        name = Path(path).stem
        if name in paintings:
            raise InputError(
                f"has the name of {paintings[name]}; rename one, as styles are called after their "
                "files",
                path=path,
            )
        paintings[name] = path
    learned = [
        LearnedStyle(name, hashlib.sha256(files.read(path)).hexdigest())
        for name, path in paintings.items()
    ]
    if os.path.exists(output) and any(os.path.samefile(path, output) for path in (*photos, *paths)):
        raise InputError("would replace a file that it learns from; give another -o", path=output)
    _check_hashes(learned, (), paintings)
    if base is None:
        return TrainingPlan(settings, photos, paintings, learned, output)
    base = base if base == EMBEDDED else os.path.abspath(base)
    if base == output:
        raise InputError("is the network to learn more; give another -o", path=output)
    known = network_facts(base)
    for style in learned:
        if style.name in known.names:
            raise InputError(
                f"{base} has a style {style.name!r} already; rename the painting, or leave it out",
                path=paintings[style.name],
            )
    _check_hashes(learned, known.styles, paintings)
    wanted = {"width": known.width, "blocks": known.blocks}
    settings = settings.model_copy(update=wanted)
    return TrainingPlan(settings, photos, paintings, learned, output, base, known)


def _check_hashes(
    learned: Sequence[LearnedStyle], known: Sequence[LearnedStyle], paintings: Mapping[str, str]
) -> None:
    """Refuses a painting that is there already under another name: pictures are told apart by the
    hashes of their paintings.
    """
    names = {style.sha256: style.name for style in known}
    for style in learned:
        if style.sha256 in names:
            raise InputError(
                f"is the painting of the style {names[style.sha256]!r}; leave one out",
                path=paintings[style.name],
            )
        names[style.sha256] = style.name


def _matches(patterns: Sequence[str], option: str, own: TrainingPlan) -> list[str]:
    """Returns the sorted paths of all files that a pattern matches, but for the training's own."""
    paths: set[str] = set()
    for pattern in patterns:
        found = glob.glob(os.path.expanduser(pattern), recursive=True)
        matches = {os.path.abspath(path) for path in found if os.path.isfile(path)}
        matches = {
            path for path in matches if path != own.output and own.folder not in Path(path).parents
        }
        if not matches:
            raise InputError(
                f"{option} {pattern}: matches no file; quote it, as in 'photos/**/*.jpg'"
            )
        paths |= matches
    return sorted(paths)
