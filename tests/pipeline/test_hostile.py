"""Manifests, cells and configs that mean harm; what fuzzing found is here as fixed cases."""

import datetime
import decimal
import json
import os
import re

import pyarrow
import pyarrow.parquet
import pytest

from nst_ops.errors import InputError
from pipeline.config.loading import load_config
from pipeline.config.run_config import RunConfig
from pipeline.errors import ConfigError, ManifestError
from pipeline.jobs.job import BadRow, Job
from pipeline.manifest.reader import checked_rows, read_manifest
from pipeline.manifest.rows import parse_row
from pipeline.planning.planner import Planner

from ..conftest import IMAGES
from ..nst_ops.test_images import HEADERS
from .conftest import config_of, count_rows

RUN = RunConfig()
PAIR = {"content": "a.jpg", "style": "s.jpg"}
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGE_BOMB = "a: &a {k: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{','.join([f'*{before}'] * 9)}]}}\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def rows_of(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return list(read_manifest(str(path), RUN))


@pytest.mark.parametrize(
    "output",
    [
        *("../x", "a/../../x", "a/..", "..", ".", "/", "//x", "\\x", "..\\x", "C:\\x", "c:x"),
        *("s3://b/x", "a\0", "a\nb", "a/" * 900, "x" * 241, "猫" * 90, "file:///etc/passwd"),
    ],
)
@pytest.mark.parametrize("column", ["id", "output"])
def test_outputs_stay_in_the_folder(output, column):
    with pytest.raises(InputError, match="output .* must be a relative path"):
        parse_row({**PAIR, column: output}, 3, "", RUN)


@pytest.mark.parametrize(
    ("output", "name"),
    [
        ("CON", "CON.png"),  # Linux and macOS write them; nothing else is supported
        ("trailing.", "trailing..png"),
        ("...", "....png"),
        ("a//b/./c", "a/b/c.png"),
        ("~/x", "~/x.png"),
        ("größe\u202e", "größe\u202e.png"),
        (7, "7.png"),
    ],
)
def test_odd_names_that_stay(output, name):
    assert parse_row({**PAIR, "output": output}, 1, "", RUN).output == name


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("A", "a", "'a.png' is written by line 2 already"),
        ("\u00e9", "e\u0301", ".* is written by line 2 already"),
        ("a/b", "a//b", "'a/b.png' is written by line 2 already"),
        ("x", "X.PNG", "'X.PNG' is written by line 2 already"),
        ("a.png", "A.png/b", "'A.png/b.png' needs a folder where line 2 writes a picture"),
        ("a.png", "A.png/b/c", "'A.png/b/c.png' needs a folder where line 2 writes a picture"),
        ("a.png/b/c", "a.png", "'a.png' is a folder to line 2"),
    ],
)
def test_outputs_that_are_one_file(tmp_path, first, second, message):
    """The later row is bad, whatever stands between; what a bad row would write is free."""
    path = tmp_path / "m.csv"
    outputs = [first, "other", second, "other/file", second]
    path.write_text("content,style,output\n" + "".join(f"a,s,{name}\n" for name in outputs))
    rows = list(checked_rows(str(path), RUN))
    assert [row.line for row in rows] == [2, 3, 4, 5, 6]
    assert [type(row) for row in rows] == [Job, Job, BadRow, Job, BadRow]
    remedy = "; give them different `output` or `id` values"
    assert re.fullmatch(f"{message}{remedy}", rows[2].message)
    assert rows[2].content == rows[0].content
    assert count_rows(str(path), RUN) == (5, [rows[2], rows[4]])


def test_a_bad_row_claims_nothing(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text(
        "content,style,output\na,s,x.png\na,s,x.png/y/z\na,s,x.png/y\na,s,y\n,s,v\na,s,v\n"
    )
    kinds = [type(row) for row in checked_rows(str(path), RUN)]
    assert kinds == [Job, BadRow, BadRow, Job, BadRow, Job]


def test_a_folder_beside_a_file_of_its_name(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("content,style,output\na,s,a\na,s,a/b\n")  # a.png and a/b.png
    assert count_rows(str(path), RUN) == (2, [])


def test_csv_oddities(tmp_path):
    text = '\ufeffcontent,style,id\r\n\r\n"a\r\nb.jpg",s.jpg,1\r\n,,\r\nc\0.jpg,s.jpg,2\r\n'
    text += "d\r\n,s\r\n"
    first, second, third, fourth = rows_of(tmp_path, "m.csv", text)  # without the empty row
    assert first.content.endswith("a\r\nb.jpg") and second.content.endswith("c\0.jpg")
    assert "'style' is empty" in third.message and "'content' is empty" in fourth.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "no column 'content'"),
        (b'content,"style\na,b\n', "m.csv: line 1: .* check the quotes"),
        (b'content,style\nx","y' + b'\nx","y' * 5000, "line .* check the quotes of this row and"),
        (b"content,style\n\xff\xfe,s\n", "not UTF-8 at byte 14"),
        ("content,style\na,s\n".encode("utf-16")[:-1], "not UTF-16 at byte"),
        (b"content,style,style\na,s,t\n", "stands twice"),
    ],
)
def test_unusable_csv(tmp_path, text, message):
    with pytest.raises(ManifestError, match=message):
        rows_of(tmp_path, "m.csv", text)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ('"a,s\nb,s\nc,s\n', "unexpected end of data on line 5; check the quotes"),
        ('"a"x,s\nb,s\nc,s\n', ".* expected after .*; check the quotes"),
        ('"a,s\nb,s\n"c",s\n', ".* expected after .* on line 5; check the quotes"),
        ("x" * 200_000 + ",s\nb,s\nc,s\n", "a cell of more than 131,072 characters"),
    ],
)
def test_wrong_quotes_cost_their_row(tmp_path, rows, message):
    text = "content,style\n0,s\n" + rows
    first, bad, *others = rows_of(tmp_path, "m.csv", text)
    assert isinstance(first, Job) and re.match(message, bad.message)
    assert [(row.line, os.path.basename(row.content)) for row in others] == [(4, "b"), (5, "c")]


def test_rows_are_named_by_the_line_where_they_begin(tmp_path):
    text = 'sep=,\r\ncontent,style\r\n\r\n"a\r\n\r\nb",s\r\nc,s\r\nd\r\n"e\r\n'
    rows = rows_of(tmp_path, "m.csv", text)
    assert [row.line for row in rows] == [4, 7, 8, 9]


def test_columns_without_a_name(tmp_path):
    """As spreadsheets write them, and pandas' index."""
    text = "content,,style,\na,,s,\nb,,s,,,\nc,,s,x\n"
    first, second, third = rows_of(tmp_path, "m.csv", text)
    assert isinstance(first, Job) and isinstance(second, Job)
    assert third.message.startswith("'x' is in a column without a name; name the column")
    table = pyarrow.table({"__index_level_0__": [7], "content": ["a"], "style": ["s"]})
    pyarrow.parquet.write_table(table, tmp_path / "m.parquet")
    (row,) = read_manifest(str(tmp_path / "m.parquet"), RUN)
    assert isinstance(row, Job)


def test_more_cells_than_columns_is_one_bad_row(tmp_path):
    first, second = rows_of(tmp_path, "m.csv", "content,style\na,b,c\nd,e\n")
    assert "quote cells that hold a comma" in first.message and isinstance(second, Job)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[" * 100_000, "not valid JSON (nested too deep)"),
        ('{"content": ' + "[" * 5000 + "]" * 5000 + "}", "nested too deep"),
        ('{"content": "a", "style": "s", "content": "b"}', "a key stands twice"),
        ('{"content": "a", "style": [{"path": "s", "weight": NaN}]}', "NaN is no number of JSON"),
        ('{"content": "a", "style": "s", "style_weight": -Infinity}', "-Infinity is no number"),
        ('{"content": "a", "style": "s", "size": ' + "9" * 5000 + "}", "not valid JSON"),
        ('{"content": "a", "style": "s", "size": ' + "9" * 400 + "}", "size"),
        ('{"content": "a", "style": [{"path": "s", "weight": 1' + "0" * 400 + "}]}", "weight"),
        ('{"content": ["a"], "style": "s"}', "content: ['a'] is not a path"),
        ('{"content": "a", "style": "s", "output": {"a": 1}}', "output: {'a': 1} is not a name"),
        ('{"content": "a", "style": "s", "init": ["noise"]}', "init"),
        ('{"content": "' + "a" * 5000 + '", "style": "s"}', "is not a path"),
        ('{"content": "a", "style": "' + "a" * 5000 + '"}', "is not a path"),
        ("7", "expected an object, got 7"),
    ],
)
def test_hostile_json_lines(tmp_path, line, message):
    hostile, sound = rows_of(tmp_path, "m.jsonl", f"{line}\r\n{json.dumps(PAIR)}\n")
    assert isinstance(sound, Job) and hostile.line == 1
    assert isinstance(hostile, BadRow) and message in hostile.message
    assert len(hostile.message) < 500


def test_a_style_cell_nested_too_deep(tmp_path):
    cell = '["a", ' + "[" * 20_000
    (row,) = rows_of(tmp_path, "m.jsonl", json.dumps({"content": "a", "style": cell}))
    assert "no JSON (nested too deep)" in row.message


@pytest.mark.parametrize(
    "cell",
    [
        *("!!python/object/apply:os.system [true]", "!!int", "!!bool x", "!!timestamp x"),
        *("!!binary é", "2001-13-45", "2024-01-01", "&a [*a]", "{? [x] : y}", "[" * 3000, ".nan"),
        *("!!set {a}", "1e999", "9" * 5000, "²", "{2024-01-01: 1}"),
    ],
)
def test_hostile_cells_are_bad_settings(cell):
    job = parse_row({**PAIR, "size": cell}, 5, "", RUN)
    with pytest.raises(ConfigError, match="^size: "):
        config_of(job, RUN)


def test_a_bomb_in_a_cell_stays_text():
    job = parse_row({**PAIR, "size": BOMB}, 1, "", RUN)
    assert len(job.overrides[0][1]) < 2 * len(BOMB)


@pytest.mark.parametrize(
    "value",
    [
        b"\xff\xfe",
        decimal.Decimal("1.5"),
        datetime.datetime(2024, 1, 1),
        datetime.date(2024, 1, 1),
        datetime.timedelta(1),
        [("a", b"x")],
    ],
)
@pytest.mark.parametrize("column", ["content", "style", "id", "size"])
def test_values_that_are_no_json(value, column):
    with pytest.raises(InputError, match=f"^(a value|a cell|{column}): ?|^a value|^a cell"):
        parse_row({**PAIR, column: value}, 4, "", RUN)


def test_odd_parquet(tmp_path):
    """A text that is no UTF-8, a date after Python's last year, and a dictionary of names."""
    broken = pyarrow.array([b"ok.jpg", b"\xff.jpg"]).view(pyarrow.string())
    path = tmp_path / "m.parquet"
    styles = pyarrow.array(["s", "s"]).dictionary_encode()
    pyarrow.parquet.write_table(pyarrow.table({"content": broken, "style": styles}), path)
    first, second = read_manifest(str(path), RUN)
    assert isinstance(first, Job) and "a value cannot be read" in second.message
    late = pyarrow.array([2**60, None], pyarrow.timestamp("ms"))
    table = pyarrow.table({"content": ["a", "b"], "style": styles, "seed": late})
    pyarrow.parquet.write_table(table, path)
    first, second = read_manifest(str(path), RUN)
    assert "a value cannot be read" in first.message and isinstance(second, Job)


def test_damaged_parquet(tmp_path):
    """The name of a column is no UTF-8: found by fuzzing."""
    path = tmp_path / "m.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"content": ["a"], "style": ["s"]}), path)
    data = path.read_bytes().replace(b"content", b"\x80ontent")
    with pytest.raises(ManifestError, match="damaged|no column 'content'"):
        rows_of(tmp_path, "m.parquet", data)


@pytest.mark.parametrize(
    "text",
    [BOMB, MERGE_BOMB, "size: !!int", "size: !!python/name:os.system", "size: &a [*a]", "[" * 5000],
)
def test_hostile_configs(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="c.yaml: not valid YAML"):
        load_config(str(path))


@pytest.mark.parametrize("value", ["!!int", "!!bool x", "2001-13-45", "[" * 3000, "&a [*a]"])
def test_hostile_overrides(value):
    with pytest.raises(ConfigError, match="--set size="):
        load_config(None, [f"size={value}"])


def test_layers_that_are_no_names():
    with pytest.raises(ConfigError, match="style_layers"):
        load_config(None, ["style_layers=[[]]"])


def test_messages_stay_short(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_config(None, ["size=[" + "[1]," * 5000 + "]"])
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), "is a folder, pipe or device"),
        (lambda path: os.mkfifo(path), "is a folder, pipe or device"),
        (lambda path: path.symlink_to("/dev/zero"), "is a folder, pipe or device"),
        (lambda path: path.symlink_to(path), "symbolic links"),
        (lambda path: path.write_bytes(b""), "the file is empty"),
        (lambda path: path.write_text("<html>404</html>"), "looks like a web page"),
        (lambda path: path.write_bytes(HEADERS["png"]), "50000x50000 px is more than max_pixels"),
        (lambda path: path.touch() or os.truncate(path, 10**12), "max_file_bytes"),
    ],
)
@pytest.mark.parametrize("column", ["content", "style"])
def test_hostile_photos_fail_their_row(tmp_path, make, message, column):
    """At once, and naming the file: nothing is waited for, or decoded."""
    make(tmp_path / "bad.jpg")
    row = {"content": str(IMAGES / "cat.jpg"), "style": str(IMAGES / "coffee.jpg")}
    job = parse_row(row | {column: "bad.jpg"}, 1, str(tmp_path), RUN)
    with pytest.raises(InputError, match=message) as caught:
        Planner(RUN, {}).plan(job)
    assert caught.value.path == str(tmp_path / "bad.jpg")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_million_rows(tmp_path, kind):
    """23 s and 510 MB of memory as CSV, 30 s as JSON Lines, on one core of a Xeon."""
    path = tmp_path / f"m.{kind}"
    with path.open("w") as file:
        if kind == "csv":
            file.write("content,style,style_weight,output\n")
        for i in range(1_000_000):
            row = {"content": f"p/{i}.jpg", "style": f"s/{i % 50}.jpg", "style_weight": i % 5 + 1}
            row["output"] = f"{i // 1000}/{i}"
            line = json.dumps(row) if kind == "jsonl" else ",".join(map(str, row.values()))
            file.write(line + "\n")
    assert count_rows(str(path), RUN) == (1_000_000, [])
