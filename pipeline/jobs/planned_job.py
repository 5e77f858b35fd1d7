"""A job whose files were seen."""

from dataclasses import dataclass

from nst_ops.engines.memory import Sources
from nst_ops.images.size import Size
from pipeline.jobs.job import Job
from pipeline.store.metadata import Row


@dataclass(frozen=True)
class PlannedJob:
    """A job whose files were seen: plain values only."""

    job: Job
    size: Size  # of the result
    spec_hash: str
    content_sha256: str
    style_sha256: tuple[str, ...]
    init_sha256: str  # "" where no file is the first picture
    weights_sha256: str
    adam_hash: str  # the spec hash of what Adam makes, where memory is short for L-BFGS
    style_sides: tuple[int, ...]  # long side in px at which each painting is seen at most
    sources: Sources
    seed: int  # of everything random, from the settings' and the photo: any batch's

    @property
    def bucket(self) -> tuple[Size, tuple[tuple[str, str], ...]]:
        """Jobs of a run with the same bucket can be optimized together."""
        return self.size, self.job.overrides

    def facts(self) -> Row:
        """The columns of the metadata that are known by now."""
        return {
            "height": self.size[0],
            "width": self.size[1],
            "seed": self.seed,
            "spec_hash": self.spec_hash,
            "content_sha256": self.content_sha256,
            "style_sha256": list(self.style_sha256),
            "weights_sha256": self.weights_sha256,
        }
