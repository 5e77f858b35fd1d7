import ast
import inspect
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import nst_ops
from nst_ops.coarse_to_fine import loop

NAMES = sorted(set(nst_ops.__all__) - {"__version__"})
FUNCTIONS = [name for name in NAMES if inspect.isfunction(getattr(nst_ops, name))]
CLASSES = [name for name in NAMES if inspect.isclass(getattr(nst_ops, name))]


def test_public_names_stay_what_they_are():
    """A module of a function's name would take its place once it is imported."""
    for name in nst_ops.__all__:
        first = getattr(nst_ops, name)
        assert getattr(nst_ops, name) is first
        assert not inspect.ismodule(first), name


def test_the_three_lists_of_public_names_agree():
    assert set(nst_ops.__all__) == {"__version__", *nst_ops._HOMES}
    assert len(nst_ops.__all__) == len(set(nst_ops.__all__))
    for_checkers = {
        alias.asname: node.module
        for node in ast.walk(ast.parse(Path(nst_ops.__file__).read_text()))
        if isinstance(node, ast.ImportFrom) and node.module != "typing"
        for alias in node.names
    }
    assert for_checkers == nst_ops._HOMES


def test_all_that_a_caller_meets_is_public():
    """Whatever of ours the signature of a public function names can be had from `nst_ops`."""
    for name in FUNCTIONS:
        for hint in typing.get_type_hints(getattr(nst_ops, name)).values():
            for kind in _classes(hint):
                if kind.__module__.startswith("nst_ops."):
                    assert getattr(nst_ops, kind.__name__) is kind, (name, kind)


def _classes(hint):
    inner = hint if isinstance(hint, list) else typing.get_args(hint)  # a list: of a Callable's
    if inspect.isclass(hint) and not inner:
        yield hint
    for each in inner:
        yield from _classes(each)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_typed_and_say_what_each_argument_is(name):
    function = getattr(nst_ops, name)
    signature, hints = inspect.signature(function), typing.get_type_hints(function)
    assert set(hints) == {*signature.parameters, "return"}
    described = _entries(function.__doc__, "Args")
    assert list(described) == list(signature.parameters)
    for argument, parameter in signature.parameters.items():
        if "ndarray" in str(parameter.annotation):
            text = described[argument]
            assert re.search(r"\[.*\bw\b.*\]", text, re.IGNORECASE), f"{argument}: no shape"
            assert "in [0, 1]" in text, f"{argument}: no range"


def test_run_takes_what_stylize_takes_and_hands_it_on(monkeypatch):
    taken = dict(inspect.signature(nst_ops.run).parameters)
    del taken["progress"]
    assert taken == inspect.signature(nst_ops.stylize).parameters
    given = {}
    monkeypatch.setattr(loop, "stylize", lambda *a, **k: given.update(k, positional=a) or iter(()))
    options = {n: object() for n, p in taken.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}
    with pytest.raises(nst_ops.InputError, match="nothing to stylize"):
        nst_ops.run("contents", "styles", "settings", **options)
    assert given == {**options, "positional": ("contents", "styles", "settings")}


@pytest.mark.parametrize("name", CLASSES)
def test_classes_say_what_each_field_is(name):
    kind = getattr(nst_ops, name)
    assert inspect.getdoc(kind) and not kind.__doc__.startswith(f"{name}("), "no docstring"
    fields = getattr(kind, "_fields", None) or list(getattr(kind, "__dataclass_fields__", ()))
    if fields:
        assert list(_entries(kind.__doc__, "Attributes")) == list(fields)
    for method, value in vars(kind).items():
        if not method.startswith("_") and (inspect.isfunction(value) or hasattr(value, "fget")):
            assert inspect.getdoc(value), f"{name}.{method}"
            function = getattr(value, "fget", None) or value
            hints = typing.get_type_hints(function)
            assert set(hints) == {*inspect.signature(function).parameters, "return"} - {"self"}


def _entries(docstring, section):
    """{name: text} of a section of a docstring."""
    found = re.search(rf"^{section}:\n((?:  .*\n|\n)+)", inspect.cleandoc(docstring) + "\n", re.M)
    entries = re.findall(r"^  (\w+): (.*(?:\n    .*)*)", found[1], re.M) if found else []
    return {name: " ".join(text.split()) for name, text in entries}


def test_settings_and_files_need_no_tensorflow():
    code = (
        "import sys, nst_ops.settings, nst_ops.coarse_to_fine.schedule, nst_ops.images.codec;"
        "import pipeline.cli.main;"
        "dir(nst_ops), nst_ops.Settings, nst_ops.Style, nst_ops.Styles, nst_ops.Picture;"
        "assert not {'tensorflow', 'keras', 'apache_beam'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
