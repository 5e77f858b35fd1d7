"""These errors end a command with exit code 2, before anything was started."""


class ConfigError(ValueError):
    """Raised for a configuration that cannot be used; nothing was started.

    Each argument is one problem, and becomes one line of the error's text.
    """

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class ManifestError(ValueError):
    """Raised for a manifest that cannot be used as a whole; nothing was started."""


class LockedError(ValueError):
    """Raised where another run is at work on the same folder."""
