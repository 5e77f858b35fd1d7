"""What ends a command before it has begun, with exit code 2."""


class ConfigError(ValueError):
    """A configuration that cannot be used; nothing was started. Its arguments are the problems, one
    a line of its text.
    """

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class ManifestError(ValueError):
    """A manifest that cannot be used as a whole; nothing was started."""


class LockedError(ValueError):
    """Another run is at work on the same folder."""
