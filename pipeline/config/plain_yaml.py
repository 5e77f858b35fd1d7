"""Reads YAML the way people mean it: plain values, and no key twice."""

import re
from typing import Any

import yaml

from nst_ops.errors import short


class DuplicateKeyError(yaml.YAMLError):
    """Raised for a key that stands twice in one mapping; PyYAML would silently take the last."""


def parse_yaml(text: str) -> Any:
    """Returns the plain values that a YAML text stands for.

    Raises:
      DuplicateKeyError: a key stands twice; the message names both lines.
      yaml.YAMLError: the text is no YAML, or has aliases or values that are not plain.
    """
    try:
        return yaml.load(text, _PlainLoader)
    except yaml.YAMLError:
        raise
    except Exception as error:  # of PyYAML's constructors, such as KeyError for `!!bool x`
        raise yaml.YAMLError(f"{type(error).__name__}: {error}") from error


class _PlainLoader(yaml.SafeLoader):
    """Loads YAML 1.1, except that `off` is a word and 1e3 a number, as people mean them."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # as PyYAML has it
        first: [kind for kind in kinds if kind[0] != "tag:yaml.org,2002:bool"]
        for first, kinds in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            # Ten lines of nested aliases can stand for a billion values.
            raise yaml.YAMLError("aliases are not supported; write the value out")
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}  # of each key
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # a list or mapping as key, which PyYAML refuses later
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in lines:
                raise DuplicateKeyError(
                    f"line {line}: the key {short(key.value)} stands twice, first on line "
                    f"{lines[name]}; keep one of them"
                )
            lines[name] = line
        return node


_PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"(?:[tT]rue|TRUE|[fF]alse|FALSE)$"), list("tTfF")
)
_PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def yaml_problem(error: Exception) -> str:
    """Returns on one line why a text is no YAML; PyYAML takes several, and marks the place."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {error.problem or error.context}"
    return " ".join(str(error).split())
