"""Damaged and hostile manifests: whatever the bytes, a `ManifestError` or one `Job` or `BadRow` for
every row, and no output outside the images folder.
"""

import io
import json
import os
import string

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pipeline.config.run_config import RunConfig
from pipeline.errors import ConfigError, ManifestError
from pipeline.jobs.job import BadRow, Job
from pipeline.manifest.reader import read_manifest
from pipeline.manifest.rows import columns
from pipeline.store import files

from ..pipeline.conftest import config_of, count_rows

RUN = RunConfig()
COLUMNS = columns(RUN)
FEW = settings(
    max_examples=60,
    derandomize=True,
    phases=[Phase.generate],  # a case that fails is left as long as it is: shrinking takes minutes
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
MANY = settings(FEW, max_examples=5_000, derandomize=False)

# Pieces that mean something to one of the parsers, or to a file system.
TRAPS = (
    *("..", "/", "\\", "../" * 9 + "etc/passwd", "C:\\x", "CON", "a.", ".", "~", "s3://b/k", "://"),
    *("\0", "\n", "\r", "\u2028", "\ud800", "é", "e\u0301", "\u202e", "\ufeff", "猫" * 90),
    *("nan", ".inf", "-.inf", "1e999", "0x1F", "1_0", "2024-01-01", "2001-13-45", "9" * 400),
    *("!!int", "!!bool x", "!!timestamp x", "!!binary é", "!!python/object:os.system x"),
    *("&a [*a]", "*a", "{? [x] : y}", "[" * 2000, "{" * 2000, '["a"', '["a", {"weight": NaN}]'),
    *('[{"path": "a", "weight": 1e400}]', '[{"path": "a", "path": "b"}]', "[]", "{}", "null"),
    *("auto", "noise", "512", "1e3", "purple", "[1, 1]", "{a: b}", '"', ",", "\t"),
)
TEXT = st.lists(st.sampled_from(TRAPS) | st.text(max_size=5), max_size=4).map("".join)
VALUES = st.recursive(
    TEXT | st.none() | st.booleans() | st.integers() | st.floats() | st.just(10**400),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["path", "weight", "size", "steps"]), inner, max_size=3)
    ),
    max_leaves=6,
)
COLUMN = st.sampled_from(COLUMNS)
ROWS = st.fixed_dictionaries({}, optional=dict.fromkeys(COLUMNS, VALUES)).map(
    # Mostly with what every row needs, so that the rest is read too.
    lambda row: row | {key: row.get(key) or "a.jpg" for key in ("content", "style")}
)


def check(folder, name, data):
    """Fails unless the reader keeps its word on this manifest; the rows that it made."""
    path = str(folder / name)
    with open(path, "wb") as file:
        file.write(data)
    try:
        rows = list(read_manifest(path, RUN))
    except ManifestError:
        return []
    for row in rows:
        assert isinstance(row, Job | BadRow)
        if isinstance(row, BadRow):
            assert 0 < len(row.message) < 10_000
            (row.message + row.content).encode()
            continue
        json.dumps([row.id, row.output, row.content]).encode()
        images = files.join(str(folder), "images")
        target = os.path.normpath(files.join(images, row.output))
        assert target.startswith(images + os.sep) and not files.is_url(row.output)
        assert "\0" not in target and len(os.path.basename(target).encode()) < 255
        assert RunConfig.model_validate_json(config_of(row, RUN).model_dump_json())
    assert [row.line for row in rows] == sorted({row.line for row in rows})
    try:
        assert count_rows(path, RUN)[0] == len(rows)
    except ManifestError as error:
        assert "no rows" in str(error) and not rows
    return rows


def csv_of(rows):
    def cell(value):
        text = value if isinstance(value, str) else json.dumps(value)
        return '"' + text.replace('"', '""') + '"'

    lines = [",".join(cell(row.get(column) or "") for column in COLUMNS) for row in rows]
    return "\n".join([",".join(COLUMNS), *lines, ""]).encode(errors="surrogatepass")


def json_lines_of(rows):
    return "\n".join(json.dumps(row) for row in rows).encode()


def check_rows(folder, rows):
    """As JSON Lines every object is a row, whatever it holds."""
    assert len(check(folder, "m.jsonl", json_lines_of(rows))) == len(rows)
    check(folder, "m.csv", csv_of(rows))


def check_text(folder, text):
    for name in ("m.csv", "m.tsv", "m.jsonl"):
        check(folder, name, text)


def test_the_check_can_see(tmp_path):
    good = [{"content": "a.jpg", "style": "s.jpg", "size": 64}, {"content": 1, "style": "s"}]
    assert [type(row) for row in check(tmp_path, "m.jsonl", json_lines_of(good))] == [Job, BadRow]
    assert [type(row) for row in check(tmp_path, "m.csv", csv_of(good))] == [Job, Job]


@FEW
@given(rows=st.lists(ROWS, max_size=3))
def test_rows(tmp_path, rows):
    check_rows(tmp_path, rows)


@FEW
@given(text=st.lists(TEXT | COLUMN | st.sampled_from([",", "\n", "content,style\n"]), max_size=20))
def test_text(tmp_path, text):
    check_text(tmp_path, "".join(text).encode(errors="surrogatepass"))


@FEW
@given(data=st.binary(max_size=200))
def test_bytes(tmp_path, data):
    check_text(tmp_path, data)
    check(tmp_path, "m.parquet", data)


def parquet_of(values, kind):
    table = pyarrow.table(
        {
            "content": ["a.jpg"] * len(values),
            "style": ["s.jpg"] * len(values),
            "size": pyarrow.array(values, kind),
        }
    )
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table, sink)
    return sink.getvalue()


PARQUET = parquet_of(["64", None, "x"], pyarrow.string())
DAMAGE = st.lists(st.tuples(st.integers(0, len(PARQUET) - 1), st.integers(0, 255)), max_size=5)


def check_damaged_parquet(folder, damage):
    data = bytearray(PARQUET)
    for at, value in damage:
        data[at] = value
    check(folder, "m.parquet", bytes(data))


@FEW
@given(damage=DAMAGE)
def test_damaged_parquet(tmp_path, damage):
    check_damaged_parquet(tmp_path, damage)


@FEW
@given(override=TEXT, key=st.sampled_from(sorted(RunConfig.model_fields)))
def test_overrides(tmp_path, override, key):
    from pipeline.config.loading import load_config

    try:
        load_config(None, [f"{key}={override}"])
    except ConfigError as error:
        assert len(str(error)) < 5000


@pytest.mark.slow
@MANY
@given(rows=st.lists(ROWS, max_size=3))
def test_many_rows(tmp_path, rows):
    check_rows(tmp_path, rows)


@pytest.mark.slow
@MANY
@given(text=st.text(string.printable) | st.lists(TEXT | COLUMN, max_size=20).map("".join))
def test_much_text(tmp_path, text):
    check_text(tmp_path, text.encode(errors="surrogatepass"))


@pytest.mark.slow
@MANY
@given(damage=DAMAGE)
def test_much_damaged_parquet(tmp_path, damage):
    check_damaged_parquet(tmp_path, damage)
