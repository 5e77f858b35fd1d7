"""`nst` commands in texts that people copy from, and whether nst would take them."""

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.cli import main as nst
from pipeline.config.loading import load_config
from pipeline.jobs.shard import Shard
from pipeline.runs.beam_options import beam_options

ROOT = Path(__file__).parent.parent


def commands_in(text: str) -> Iterator[list[str]]:
    """The words after `nst` of every command in a shell's text, quoted commands included."""
    text = re.sub(r"\\\n\s*#?\s*", " ", text)
    for line in text.splitlines():
        try:
            words = shlex.split(line.strip().lstrip("# "))
        except ValueError:  # prose
            continue
        cuts = [0, *(i + 1 for i, word in enumerate(words) if word in ("&&", "||", "|", ";"))]
        for begin, end in zip(cuts, [*(cut - 1 for cut in cuts[1:]), len(words)], strict=True):
            part = words[begin:end]
            for index, word in enumerate(part[:-1]):
                if Path(word).name == "nst" and part[index + 1] in nst._COMMANDS:
                    yield part[index + 1 :]
            for word in part:
                if " " in word:
                    yield from commands_in(word)


def check_command(words: Sequence[str]) -> None:
    """Takes a command's arguments as nst does, down to settings and Beam's options; an error if it
    would refuse them. Nothing is started.
    """
    options, rest = nst._parser().parse_known_args(words)
    assert options.command == "run" or rest == []
    if not hasattr(options, "overrides"):
        return
    preset = (options.config or "").startswith("configs/")
    config = load_config(str(ROOT / options.config) if preset else None, options.overrides)
    if options.command != "run":
        return
    beam_options(rest, config, rows=100)
    index = re.sub(
        r"\$\(\(JOB_COMPLETION_INDEX \+ 1\)\)|\$SLURM_ARRAY_TASK_ID", "16", options.shard
    )
    assert Shard.parse(index) in (Shard(), Shard(16, 16))
