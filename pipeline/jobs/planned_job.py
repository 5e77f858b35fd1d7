"""A `PlannedJob` is a job whose files were looked at."""

from dataclasses import dataclass
from typing import Any

from nst_ops.engines.base import Sources
from nst_ops.images.size import Size
from pipeline.jobs.job import Job


@dataclass(frozen=True)
class PlannedJob:
    """Holds all that a worker needs to know of a job, as plain values."""

    job: Job
    engine: str  # its name
    size: Size  # of the result
    style_sha256: tuple[str, ...]
    initial_sha256: str  # "" where no file is the first picture
    mask_sha256: tuple[tuple[str, str], ...]  # (path of a mask, its SHA-256)
    assets: tuple[tuple[str, str], ...]  # (what the engine works with, its SHA-256)
    style_sides: tuple[int, ...]  # long side in px at which each painting is needed at most
    sources: Sources
    # What follows from the photo's content, which may be read only when the picture is made: see
    # `Identities.identify`.
    content_sha256: str = ""
    spec_hashes: tuple[tuple[str, str], ...] = ()  # (variant, hash); first what was asked
    seed: int = 0  # of all random choices; from the setting and the photo: the same in any batch

    @property
    def spec_hash(self) -> str:
        """Returns the hash of the picture that was asked for; "" as long as it is not known."""
        return self.spec_hashes[0][1] if self.spec_hashes else ""

    @property
    def variants(self) -> dict[str, str]:
        """Returns the engine's variants by the spec hash of the picture that each would make."""
        return {spec_hash: name for name, spec_hash in self.spec_hashes}

    @property
    def bucket(self) -> tuple[Size, tuple[tuple[str, str], ...]]:
        """Returns what jobs of a run must share to be made together in one batch."""
        return self.size, self.job.overrides

    def facts(self) -> dict[str, Any]:
        """Returns the metadata columns that are known by now."""
        return {
            "engine": self.engine,
            "height": self.size[0],
            "width": self.size[1],
            "seed": self.seed if self.spec_hash else None,
            "spec_hash": self.spec_hash or None,
            "content_sha256": self.content_sha256 or None,
            "style_sha256": list(self.style_sha256),
            **{f"{name}_sha256": sha256 for name, sha256 in self.assets},
        }
