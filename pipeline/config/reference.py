"""All settings in words, for people: what `nst settings` and the README's tables say.

Everything is read from the models, through their JSON schemas: descriptions, defaults, constraints.
What no schema says, a field adds to its own: `unit`, of a number, and `unset`, what holds where the
setting is not given.
"""

import dataclasses
import difflib
import re
import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nst_ops.engines.base import DEFAULT, engine_class, engine_names
from pipeline.config.run_config import RunConfig
from pipeline.errors import ConfigError

RUN = ""  # the owner of the settings that runs of all engines have
_TEXTS = {"uri": "a web address", "path": "a path"}  # by a schema's format

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Setting:
    """One setting, as texts; those about values are Markdown.

    `owner` is the engine that has it, or `RUN`. `default` is YAML, or "" where nothing is set; then
    `unset` may say what holds. `column` says whether a row of a manifest may have its own. `keys`
    is what each entry of a list of mappings holds. `others` are engines that have the same setting.
    """

    name: str
    owner: str
    default: str
    unset: str
    unit: str
    range: str
    effect: str
    column: bool
    keys: Sequence["Setting"] = ()
    others: Sequence[str] = ()

    def same(self, other: "Setting") -> bool:
        """Whether it is the same setting, perhaps of another engine."""
        return _unowned(self) == _unowned(other)


def all_settings() -> dict[str, list[Setting]]:
    """Every setting by its owner: the run, then each engine that is installed."""
    groups = {RUN: _of_schema(RunConfig.model_json_schema(), RUN, columns=RunConfig.of_rows)}
    for name in engine_names():
        kind = engine_class(name)
        schema = kind.Settings.model_json_schema()
        columns = schema["properties"].keys() - kind.run_wide
        groups[name] = _of_schema(schema, name, columns=columns, files=kind.file_settings)
    return groups


def setting_names() -> list[str]:
    """Of all settings, each once: engines may have settings of one name."""
    return list(dict.fromkeys(s.name for group in all_settings().values() for s in group))


def find_settings(name: str) -> list[Setting]:
    """The settings of a name, one for each owner; for a dotted name, such as `scales.0.steps`, the
    setting that it reaches into.

    Raises:
      ConfigError: there is none.
    """
    key = name.partition(".")[0]
    found = [s for group in all_settings().values() for s in group if s.name == key]
    if not found:
        names = setting_names()
        close = difflib.get_close_matches(key, names, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"settings are {', '.join(names)}"
        raise ConfigError(f"there is no setting {key!r}; {hint}")
    merged: list[Setting] = []
    for setting in found:
        same = next((index for index, s in enumerate(merged) if s.same(setting)), None)
        if same is None:
            merged.append(setting)
        else:
            others = (*merged[same].others, setting.owner)
            merged[same] = dataclasses.replace(merged[same], others=others)
    return merged


def _unowned(setting: Setting) -> Setting:
    keys = tuple(map(_unowned, setting.keys))
    return dataclasses.replace(setting, owner="", others=(), keys=keys)


def grouped_settings() -> dict[str, tuple[list[Setting], dict[str, list[str]]]]:
    """The settings of each owner, apart from those that it shares with an engine before it: these
    by that engine's name, {owner: (settings, {engine: names})}.
    """
    groups: dict[str, tuple[list[Setting], dict[str, list[str]]]] = {}
    for owner, group in all_settings().items():
        own, shared = [], {}
        for setting in group:
            holders = (name for name, (known, _) in groups.items() if any(map(setting.same, known)))
            holder = next(holders, None)
            if holder is None:
                own.append(setting)
            else:
                shared.setdefault(holder, []).append(setting.name)
        groups[owner] = own, shared
    return groups


def _shared_words(shared: Mapping[str, Sequence[str]], mark: str) -> list[str]:
    return [
        f"As of {mark}engine: {engine}{mark}: {', '.join(f'{mark}{name}{mark}' for name in names)}."
        for engine, names in shared.items()
    ]


def title(owner: str) -> str:
    """What the settings of an owner are headed by."""
    return f"Of `engine: {owner}`:" if owner else "Of every run:"


def listing(width: int) -> str:
    """All settings, two or more lines each.

    Args:
      width: of a line, in characters, as far as effects can be wrapped.
    """
    lines: list[str] = []
    for owner, (group, shared) in grouped_settings().items():
        lines += [title(owner), ""]
        for s in group:
            default = s.default or s.unset or "-"
            lines.append(f"  {s.name:18} {default:21} {s.unit:9} {s.range}")
            lines += textwrap.wrap(
                s.effect,
                max(width, 40),
                initial_indent="      ",
                subsequent_indent="      ",
                break_on_hyphens=False,
            )
        for words in _shared_words(shared, ""):
            lines += ["", *textwrap.wrap(words, max(width, 40), break_on_hyphens=False)]
        lines.append("")
    lines.append("Columns: name, default, unit, range. In full, one by one: nst settings NAME")
    return "\n".join(lines)


def describe(setting: Setting) -> str:
    """One setting in full, on several lines."""
    facts = {
        "effect": setting.effect,
        "default": setting.default or setting.unset or "not set",
        "range": setting.range,
        "unit": setting.unit,
        "owner": " and ".join(f"`engine: {name}`" for name in (setting.owner, *setting.others))
        if setting.owner
        else "every run",
        "config": f"`{setting.name}: VALUE` in the YAML file of --config",
        "--set": f"`--set {setting.name}=VALUE`",
        "manifest": f"a column `{setting.name}`, for single rows"
        if setting.column
        else "no column, as it holds for all rows",
    }
    lines = [setting.name, *(f"  {name:8}  {text}" for name, text in facts.items() if text)]
    if setting.keys:
        lines.append("  each entry of the list:")
    for key in setting.keys:
        values = " ".join(filter(None, (key.range, key.unit)))
        default = f", default {key.default}" if key.default else ""
        lines.append(f"    {key.name:8} {key.effect}: {values}{default}")
    return "\n".join(lines)


def markdown() -> str:
    """All settings as the README's tables, one for each owner."""
    tables = []
    for owner, (group, shared) in grouped_settings().items():
        rows = [("setting", "default", "unit", "range", "effect"), ("---",) * 5]
        for s in group:
            default = f"`{s.default}`" if s.default else s.unset
            rows.append((f"`{s.name}`", default, s.unit, s.range, s.effect))
        lines = [f"| {' | '.join(row)} |" for row in rows]
        more = [text for words in _shared_words(shared, "`") for text in ("", words)]
        tables.append("\n".join([title(owner), "", *lines, *more]))
    return "\n\n".join(tables)


def _of_schema(
    schema: Schema,
    owner: str,
    *,
    columns: Collection[str] = (),
    files: Mapping[str, Sequence[str]] | None = None,
    definitions: Schema | None = None,
) -> list[Setting]:
    """A model's fields.

    Args:
      columns: those that rows of a manifest may have.
      files: those that hold a path, or one of these words.
      definitions: of the models that the schema refers to; its own, if it is not given.
    """
    definitions = schema.get("$defs", {}) if definitions is None else definitions
    found = []
    for name, field in schema["properties"].items():
        default, values, keys = field.get("default"), _range(field, definitions), []
        if name == "engine" and owner == RUN:  # a name to users, to the model what it stands for
            default, values = DEFAULT, _one_of([f"`{word}`" for word in engine_names()])
        if files and name in files:
            values = _one_of([*(f"`{word}`" for word in files[name]), "a path"])
        if entry := _entry(field, definitions):
            keys = _of_schema(entry, owner, definitions=definitions)
            if default and not isinstance(default, str):
                default = [_without_defaults(value, entry) for value in default]
        found.append(
            Setting(
                name,
                owner,
                default="" if default is None else _yaml(default),
                unset=field.get("unset", ""),
                unit=field.get("unit", ""),
                range=values,
                effect=field.get("description", ""),
                column=name in columns,
                keys=keys,
            )
        )
    return found


def _branches(field: Schema) -> Sequence[Schema]:
    return field.get("anyOf", [field])


def _entry(field: Schema, definitions: Schema) -> Schema | None:
    """The model of a list's entries, if the setting is such a list."""
    for branch in _branches(field):
        if "$ref" in branch.get("items", {}):
            return definitions[branch["items"]["$ref"].rpartition("/")[2]]
    return None


def _without_defaults(value: Mapping[str, Any], model: Schema) -> dict[str, Any]:
    known = model["properties"]
    return {key: given for key, given in value.items() if given != known[key].get("default")}


def _range(field: Schema, definitions: Schema) -> str:
    """Which values a setting takes."""
    texts: list[str] = []
    for branch in _branches(field):
        kind = branch.get("type")
        if "const" in branch or "enum" in branch:
            words = branch["enum"] if "enum" in branch else [branch["const"]]
            texts += [f"`{word}`" for word in words]
        elif kind in ("integer", "number"):
            texts.append(_bounds(branch))
        elif kind == "boolean":
            texts += ["`true`", "`false`"]
        elif kind == "string":
            texts.append(_TEXTS.get(field.get("format", ""), "text"))
        elif kind == "array":
            texts.append(_list_range(branch, definitions))
        elif kind == "object":
            texts.append(f"weights of {_bounds(branch['additionalProperties'])}")
        elif kind == "null" and field.get("default") is not None:
            texts.append("`null`")
    return _one_of(texts)


def _list_range(field: Schema, definitions: Schema) -> str:
    least, most = field.get("minItems", 1), field.get("maxItems")
    count = f"{least} to {most}" if most else f"{least} or more"
    entry = _entry(field, definitions)
    if entry is None:
        return f"a list of {count}, each {_range(field['items'], definitions)}"
    required = entry.get("required", ())
    keys = [key if key in required else f"{key}?" for key in entry["properties"]]
    return f"a list of {count} `{{{', '.join(keys)}}}`"


def _bounds(field: Schema) -> str:
    above = field.get("exclusiveMinimum")
    least, most = field.get("minimum"), field.get("maximum")
    if "exclusiveMaximum" in field:  # which only integers have here
        most = field["exclusiveMaximum"] - 1
    if least is not None and most is not None:
        text = f"{_yaml(least)} to {_yaml(most)}"
    elif least is not None:
        text = f"at least {_yaml(least)}"
    elif above is not None:
        text = f"above {_yaml(above)}"
    else:
        text = "any number"
    if "multipleOf" in field:
        text += f", a multiple of {field['multipleOf']}"
    if "examples" in field:
        text += f", or text such as {_one_of([f'`{example}`' for example in field['examples']])}"
    return text


def _one_of(texts: Sequence[str]) -> str:
    *others, last = texts or [""]
    return f"{', '.join(others)} or {last}" if others else last


def _yaml(value: Any) -> str:
    """On one line, numbers as short as they can be told."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        short = f"{value:g}"
        exact = short if float(short) == value else str(value)
        return re.sub(r"e([-+])0*", lambda found: "e" + found[1].replace("+", ""), exact)
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_yaml(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(_yaml, value))}]"
    return str(value)
