"""Writes the scripts of `nst completion`, by which shells complete the words of `nst`."""

import argparse
from collections.abc import Iterator

import shtab

from pipeline.config.reference import setting_names

_NAMES = " ".join(setting_names())
_SETTINGS = " ".join(f"{name}=" for name in setting_names())
_SETTING = {
    "bash": "_nst_settings",
    "zsh": "_nst_settings",
    "fish": _SETTINGS,
    "preamble": {
        "bash": f'_nst_settings() {{\n  compgen -W "{_SETTINGS}" -- "$1"\n}}',
        "zsh": f"_nst_settings() {{\n  compadd -S '' -- {_SETTINGS}\n}}",
    },
}
_NAME = {
    "bash": "_nst_setting_names",
    "zsh": "_nst_setting_names",
    "fish": _NAMES,
    "preamble": {
        "bash": f'_nst_setting_names() {{\n  compgen -W "{_NAMES}" -- "$1"\n}}',
        "zsh": f"_nst_setting_names() {{\n  compadd -- {_NAMES}\n}}",
    },
}
# Otherwise Bash would add a space behind `size=`.
_NO_SPACE = """
_nst() {
  _shtab_nst "$@"
  [[ ${COMPREPLY[0]} != *= ]] || compopt -o nospace 2>/dev/null
}
complete -o bashdefault -F _nst nst"""
# What a value is, by its placeholder in the help.
_KINDS = {
    "FILE": shtab.FILE,
    "CONTENT": shtab.FILE,
    "STYLE": shtab.FILE,
    "GLOB": shtab.FILE,
    "DIR": shtab.DIRECTORY,
    "KEY=VALUE": _SETTING,
    "NAME": _NAME,
}


def completion_script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Returns a script that completes commands, options, choices, paths and names of settings.

    Args:
      parser: the parser of the whole command; its actions get marked for shtab.
      shell: `bash`, `zsh` or `fish`.
    """
    for action in _actions(parser):
        if kind := _KINDS.get(str(action.metavar)):
            action.complete = kind
    script = shtab.complete(parser, shell)
    return script + _NO_SPACE if shell == "bash" else script


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yields the actions of the parser and of its subparsers."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _actions(below)
