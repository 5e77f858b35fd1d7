"""A `Shard` is the share of a manifest's rows that one run makes, as in `nst run --shard 3/16`.

Shards run independently of each other; only the scheduler knows that they belong together.
"""

import re
from typing import NamedTuple

from pipeline.errors import ConfigError


class Shard(NamedTuple):
    """Stands for the rows on every `count`-th line of a manifest; `number` counts from 1."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Returns the shard that text such as 3/16 names.

        Raises:
          ConfigError: the text is no NUMBER/COUNT.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        shard = cls(int(match[1]), int(match[2])) if match else cls(0, 0)
        if not 1 <= shard.number <= shard.count:
            raise ConfigError(f"--shard {text}: expected NUMBER/COUNT, such as 3/16, from 1 on")
        return shard

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def share(self, rows: int) -> int:
        """Returns about how many of a manifest's rows are in this shard."""
        return -(-rows // self.count)

    def has(self, line: int) -> bool:
        """Says whether a line of the manifest is in this shard."""
        return line % self.count == self.number % self.count
