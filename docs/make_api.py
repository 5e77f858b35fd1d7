"""`python docs/make_api.py`: writes docs/api.md from the docstrings of `nst_ops`.

Signatures are taken from the sources as they are written there, so nothing has to be imported that
starts TensorFlow. A test fails when the page is not what this gives.
"""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pydantic

import nst_ops
from nst_ops import settings

PAGE = Path(__file__).with_name("api.md")
ROOT = PAGE.parents[1]

INTRODUCTION = """# API

What `import nst_ops` offers: the method on arrays, without manifests or a pipeline.
[The walkthrough](../examples/walkthrough.ipynb) shows it at work; the [README](../README.md) has
the command line.

Everywhere: an image is float32 `[H, W, 3]`, a batch of them `[B, H, W, 3]`, sRGB, in [0, 1]; a size
is (height, width) in px.

*Made from the docstrings by `python docs/make_api.py`; change them, not this page.*
"""
# In the order in which a reader meets them; every name of `__all__` stands in one of these.
TOPICS = {
    "Making pictures": ("run", "stylize", "Styles", "Painting", "Style", "Knobs"),
    "What comes back": ("Result", "Report", "ScaleReport", "Iterate"),
    "Going on another time": ("Checkpoint", "load_checkpoint"),
    "In one pass": ("load_network", "Painter", "NetworkFacts"),
    "Settings": ("Settings", "Scale", "StyleScale"),
    "Image files": ("decode", "encode", "shrink", "Picture"),
    "Parts": ("vgg19", "TargetCache", "InputError"),
}
_SECTION = re.compile(r"(Args|Attributes|Returns|Yields|Raises):")
_ENTRY = re.compile(r"([\w*]+): (.*)", re.DOTALL)
_WIDTH = 88  # of signatures that stand on one line


def page() -> str:
    """The page as it should be."""
    parts = [INTRODUCTION]
    for topic, names in TOPICS.items():
        parts.append(f"## {topic}\n")
        for name in names:
            parts += [f"### {name}\n", *(f"{part}\n" for part in entry(name))]
    return "\n".join(parts)


def entry(name: str) -> Iterator[str]:
    """The paragraphs on one name."""
    source, node, text = definition(nst_ops._HOMES[name], name)
    if isinstance(node, ast.ClassDef):
        yield code(source.class_text(node))
        yield from prose(text)
        model = getattr(settings, name, None)
        if model is not None:
            yield "\n".join(model_fields(model))
        for child in node.body:
            if isinstance(child, ast.FunctionDef) and not child.name.startswith("_"):
                yield f"**`{source.method_text(child)}`**"
                yield from prose(ast.get_docstring(child) or "")
    elif isinstance(node, ast.FunctionDef):
        yield code(source.signature(node))
        yield from prose(text)
    else:
        yield code(source.text(node))
        yield from prose(text)


def definition(module: str, name: str) -> tuple["Source", ast.stmt, str]:
    """Where a module defines a name, and its docstring; "" if it has none."""
    source = Source(module)
    for number, node in enumerate(source.body):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return source, node, ast.get_docstring(node) or ""
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return source, node, text_after(source.body[number + 1 :])
        if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:
            return definition(str(node.module), name)
    raise LookupError(f"{module} does not define {name}")


def text_after(body: list[ast.stmt]) -> str:
    """The string that stands below an assignment, which is how an alias is described."""
    if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        return inspect.cleandoc(str(body[0].value.value))
    return ""


def model_fields(model: type[pydantic.BaseModel]) -> Iterator[str]:
    """The settings of a model, with defaults and units."""
    for name, field in model.model_fields.items():
        default = "" if field.is_required() else f" = {field.default!r}"
        extra = field.json_schema_extra
        unit = f" ({extra['unit']})" if isinstance(extra, dict) and "unit" in extra else ""
        description = f": {field.description}" if field.description else ""
        yield f"- `{name}{default}`{unit}{description}"


class Source:
    """A module's text: what is shown of it is as it is written there."""

    def __init__(self, module: str):
        self._module = module
        self._text = (ROOT / (module.replace(".", "/") + ".py")).read_text()
        self.body = ast.parse(self._text).body

    def text(self, node: ast.AST) -> str:
        """On one line."""
        return joined(ast.get_source_segment(self._text, node) or "")

    def class_text(self, node: ast.ClassDef) -> str:
        """How it is made: by its constructor, or of its fields."""
        for child in node.body:
            if isinstance(child, ast.FunctionDef) and child.name == "__init__":
                return f"class {node.name}{self.signature(child).removeprefix('def __init__')}"
        fields = [child for child in node.body if isinstance(child, ast.AnnAssign)]
        if hasattr(settings, node.name):  # whose fields are listed with what they mean
            fields = []
        return "\n".join([f"class {node.name}" + ":" * bool(fields), *map(self._field, fields)])

    def _field(self, node: ast.AnnAssign) -> str:
        # `field(default_factory=list)` would say nothing to readers.
        plain = node.value is not None and not isinstance(node.value, ast.Call)
        default = f" = {self.text(node.value)}" if plain else ""
        return f"    {self.text(node.target)}: {self.text(node.annotation)}{default}"

    def signature(self, node: ast.FunctionDef) -> str:
        """`def name(...) -> result`, on one line if that is short."""
        given = list(self._arguments(node.args))
        line = f"def {node.name}({', '.join(given)}){self._result(node)}"
        if len(line) <= _WIDTH:
            return line
        lines = [f"def {node.name}(", *(f"    {each}," for each in given)]
        return "\n".join([*lines, f"){self._result(node)}"])

    def method_text(self, node: ast.FunctionDef) -> str:
        """A method as it is called; a property as it is read."""
        if any("property" in self.text(decorator) for decorator in node.decorator_list):
            return f"{node.name}{self._result(node)}"
        return f"{node.name}({', '.join(self._arguments(node.args))}){self._result(node)}"

    def _result(self, node: ast.FunctionDef) -> str:
        # A type that is named before it is known stands in quotes.
        return " -> " + self.text(node.returns).strip('"') if node.returns else ""

    def _arguments(self, given: ast.arguments) -> Iterator[str]:
        """All but `self`, with defaults."""
        defaults = [None] * (len(given.args) - len(given.defaults)) + given.defaults
        for argument, default in zip(given.args, defaults, strict=True):
            if argument.arg not in ("self", "cls"):
                yield self._argument(argument, default)
        if given.vararg or given.kwonlyargs:
            yield f"*{self.text(given.vararg) if given.vararg else ''}"
        for argument, default in zip(given.kwonlyargs, given.kw_defaults, strict=True):
            yield self._argument(argument, default)
        if given.kwarg:
            yield f"**{self.text(given.kwarg)}"

    def _argument(self, argument: ast.arg, default: ast.expr | None) -> str:
        if default is None:
            return self.text(argument)
        source: Source = self
        if isinstance(default, ast.Name):  # a constant, of which the value says more
            source, node, _ = definition(self._module, default.id)
            default = node.value if isinstance(node, ast.Assign) else default
        return f"{self.text(argument)} = {source.text(default)}"


def prose(text: str) -> Iterator[str]:
    """A docstring as Markdown: its sections become lists."""
    for paragraph in filter(None, re.split(r"\n\s*\n", text)):
        title, _, rest = paragraph.partition("\n")
        if not _SECTION.fullmatch(title):
            yield joined(paragraph)
            continue
        if title in ("Returns:", "Yields:"):
            yield f"{title} {joined(rest)}"
            continue
        entries = re.split(r"\n(?=  \S)", rest)
        yield f"{title}\n\n" + "\n".join(f"- {named(joined(each))}" for each in entries)


def joined(text: str) -> str:
    """The text on one line."""
    return " ".join(text.split())


def named(text: str) -> str:
    """`name: text`, with the name set as code; a text without a name as it is."""
    found = _ENTRY.fullmatch(text)
    return f"`{found[1]}`: {found[2]}" if found else text


def code(text: str) -> str:
    """A block of Python."""
    return f"```python\n{text}\n```"


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"wrote {PAGE.relative_to(ROOT)}")
