"""A run cut into parts that nobody but the scheduler brings together: `nst run --shard 3/16`."""

import re
from typing import NamedTuple

from pipeline.errors import ConfigError


class Shard(NamedTuple):
    """The rows on every `count`-th line of a manifest; `number` counts from 1."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Of text such as 3/16.

        Raises:
          ConfigError: it is no such text.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        shard = cls(int(match[1]), int(match[2])) if match else cls(0, 0)
        if not 1 <= shard.number <= shard.count:
            raise ConfigError(f"--shard {text}: expected NUMBER/COUNT, such as 3/16, from 1 on")
        return shard

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def share(self, rows: int) -> int:
        """How many of a manifest's rows this is, about."""
        return -(-rows // self.count)

    def has(self, line: int) -> bool:
        """Whether a line of the manifest is in this part."""
        return line % self.count == self.number % self.count
