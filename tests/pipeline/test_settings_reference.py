"""What `nst settings` and the README say of settings is what the models do."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from nst_ops.engines.base import engine_class, engine_names
from pipeline.config.loading import load_config
from pipeline.config.reference import (
    RUN,
    all_settings,
    describe,
    find_settings,
    grouped_settings,
)
from pipeline.config.run_config import RunConfig, row_settings
from pipeline.errors import ConfigError

ROOT = Path(__file__).parent.parent.parent
ALL = [setting for group in all_settings().values() for setting in group]
MODELS = {RUN: RunConfig, **{name: engine_class(name).Settings for name in engine_names()}}


def nst(*arguments):
    command = [sys.executable, "-m", "pipeline", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def given(setting, value):
    """A config in which a setting has a value, as a user of its engine writes it."""
    overrides = [f"engine={setting.owner}"] if setting.owner else []
    return load_config(None, [*overrides, f"{setting.name}={value}"])


@pytest.mark.parametrize("setting", ALL, ids=lambda setting: f"{setting.owner}-{setting.name}")
def test_every_setting_is_described(setting):
    assert setting.effect and setting.range
    assert all(key.effect and key.range for key in setting.keys)


@pytest.mark.parametrize(
    "setting", [s for s in ALL if s.default], ids=lambda setting: f"{setting.owner}-{setting.name}"
)
def test_defaults_can_be_given_as_they_are_printed(setting):
    plain = load_config(None, [f"engine={setting.owner}"] if setting.owner else [])
    assert given(setting, setting.default).model_dump() == plain.model_dump()


def bounds():
    """Numbers that are just inside, and just outside, of what a setting's schema allows."""
    for setting in ALL:
        field = MODELS[setting.owner].model_json_schema()["properties"][setting.name]
        for branch in field.get("anyOf", [field]):
            step = branch.get("multipleOf", 1)
            if "minimum" in branch:
                yield setting, branch["minimum"], branch["minimum"] - step
            if "maximum" in branch:
                yield setting, branch["maximum"], branch["maximum"] * 2
            if "exclusiveMinimum" in branch:
                yield setting, branch["exclusiveMinimum"] + 1, branch["exclusiveMinimum"]
            if "exclusiveMaximum" in branch:
                yield setting, branch["exclusiveMaximum"] - 1, branch["exclusiveMaximum"]
            if "multipleOf" in branch:
                yield setting, branch["minimum"] + step, branch["minimum"] + step + 1


@pytest.mark.parametrize(
    ("setting", "inside", "outside"),
    list(bounds()),
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_ranges_are_those_of_the_models(setting, inside, outside):
    given(setting, inside)
    with pytest.raises(ConfigError, match=f"^--set: {setting.name}"):
        given(setting, outside)


def test_octaves_range_is_that_of_the_model():
    (setting,) = find_settings("octaves")
    assert setting.range == "a list of 1 to 6, each `0` or 1e-6 to 1e6"
    given(setting, "[0, 1e-6, 1e6]")
    for outside in ("[]", "[1, 1e-7]", "[1, 2e6]", "[1, 1, 1, 1, 1, 1, 1]"):
        with pytest.raises(ConfigError):
            given(setting, outside)


def test_words_are_those_of_the_models():
    """Of what the command calls words, but `null` and what stands for any text."""
    for setting in ALL:
        for word in re.findall(r"`([a-z]\w+)`", setting.range):
            given(setting, word)


def test_columns_are_those_of_manifests():
    for engine in engine_names():
        config = load_config(None, [f"engine={engine}"])
        columns = {s.name for s in ALL if s.column and s.owner in (RUN, engine)}
        assert columns == set(row_settings(config))


def test_owners_are_told_apart():
    assert find_settings("format")[0].owner == RUN
    assert find_settings("steps")[0].owner == "optimizer"


def test_a_setting_in_full():
    (setting,) = find_settings("scales.0.steps")
    text = describe(setting)
    for part in (
        *("default   auto", "`engine: optimizer`", "--set scales=VALUE", "a column `scales`"),
        "steps    at most this many of the optimizer: 1 to 100000 steps",
        "weight   multiplies `style_weight` at this scale: 1e-6 to 1e6, default 1",
    ):
        assert part in text
    assert "no column" in describe(*find_settings("weights"))


def test_command_lists_all():
    done = nst("settings")
    assert (done.returncode, done.stderr) == (0, "")
    names = re.findall(r"^  (\w+) ", done.stdout, re.MULTILINE)
    groups = grouped_settings().values()
    assert names == [setting.name for own, _ in groups for setting in own]
    assert "As of engine: optimizer: " in done.stdout
    shared = [name for _, others in groups for names in others.values() for name in names]
    assert sorted([*names, *shared]) == sorted(setting.name for setting in ALL)
    assert re.search(r"^  size +512 +px +32 to 65536$", done.stdout, re.MULTILINE)


def test_command_tells_of_one():
    done = nst("settings", "memory_limit")
    assert (done.returncode, done.stderr) == (0, "")
    assert "70 % of what is free" in done.stdout and "such as `8GB`" in done.stdout


@pytest.mark.parametrize(
    ("name", "hint"), [("seize", "did you mean 'size'?"), ("frobnicate", "settings are engine, ")]
)
def test_command_knows_what_is_close(name, hint):
    done = nst("settings", name)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"there is no setting {name!r}; {hint}" in done.stderr
    assert done.stderr.count("\n") == 1


def test_command_starts_neither_tensorflow_nor_beam():
    code = (
        "import sys; from pipeline.cli.main import main; main(['settings']);"
        "assert not {'tensorflow', 'keras', 'apache_beam'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_readme_has_the_tables_as_the_command_prints_them():
    readme = (ROOT / "README.md").read_text()
    (tables,) = re.findall(
        r"<!-- settings: .*? -->\n\n(.*?)\n\n<!-- end of settings -->", readme, re.DOTALL
    )
    done = nst("settings", "--markdown")
    assert done.returncode == 0, done.stderr
    assert tables == done.stdout.rstrip("\n"), "put what `nst settings --markdown` prints there"
