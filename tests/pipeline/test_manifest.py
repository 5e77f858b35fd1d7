import json
import os

import pyarrow
import pyarrow.parquet
import pytest

from nst_ops.errors import InputError
from pipeline.config.loading import load_config
from pipeline.config.run_config import RunConfig
from pipeline.errors import ConfigError, ManifestError
from pipeline.jobs.job import BadRow, StyleSource
from pipeline.manifest.pairing import make_manifest, write_manifest
from pipeline.manifest.reader import read_manifest
from pipeline.manifest.rows import parse_row
from pipeline.training.plan import load_settings

from .conftest import config_of, count_rows

RUN = RunConfig()


def rows_of(tmp_path, name, text):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(read_manifest(str(path), RUN))


def test_csv(tmp_path):
    text = (
        b"\xef\xbb\xbfcontent,style,style_weight,id\n"
        b'"a, b.jpg",s.png,0.05,\n'
        b"\n"
        b'/abs/c.jpg,"[{""path"": ""s.png"", ""weight"": 3}, ""t.png""]",,night\n'
    )
    first, second = rows_of(tmp_path, "m.csv", text)
    assert first.content == str(tmp_path / "a, b.jpg")
    assert config_of(first, RUN).engine.settings.style_weight == 0.05
    assert second.content == "/abs/c.jpg" and second.line == 4
    assert second.styles == (
        StyleSource(str(tmp_path / "s.png"), 3.0),
        StyleSource(str(tmp_path / "t.png")),
    )
    assert second.output == "night.png" and config_of(second, RUN) is RUN


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.CSV", b"content;style\r\na, b.jpg;s.png\r\n;\r\n"),
        ("m.csv", b"sep=;\r\ncontent;style\r\na, b.jpg;s.png\r\n"),
        ("m.csv", b'content,style\r\n"a, b.jpg",s.png\r\n,\r\n,\r\n'),
        ("m.txt", "content\tstyle\r\na, b.jpg\ts.png\r\n".encode("utf-16")),
        ("m.tsv", b"content\tstyle\na, b.jpg\ts.png\n"),
    ],
)
def test_tables_as_spreadsheets_write_them(tmp_path, name, text):
    (row,) = rows_of(tmp_path, name, text)
    assert (row.content, row.styles) == (
        str(tmp_path / "a, b.jpg"),
        (StyleSource(str(tmp_path / "s.png")),),
    )
    assert row.line == (3 if text.startswith(b"sep") else 2)


def test_names_that_were_given_stay():
    def output(format="png", **given):
        config = RunConfig.model_validate({"format": format})
        return parse_row({"content": "a", "style": "s"} | given, 1, "/", config).output

    assert output(id=0) == output(output=0) == "0.png"
    assert output("tiff", output="c.tiff") == "c.tiff" and output("tiff", id="c") == "c.tif"
    assert output("jpeg", output="c.JPEG") == "c.JPEG"


def test_json_lines_and_parquet(tmp_path):
    row = {"content": "a.jpg", "style": ["s.png", {"path": "t.png", "weight": 2}], "size": 256}
    (from_json,) = rows_of(tmp_path, "m.jsonl", json.dumps(row) + "\n")
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist([{**row, "style": json.dumps(row["style"])}]),
        tmp_path / "m.parquet",
    )
    (from_parquet,) = read_manifest(str(tmp_path / "m.parquet"), RUN)
    assert from_json.styles == from_parquet.styles
    assert (
        config_of(from_json, RUN).engine.settings.size
        == config_of(from_parquet, RUN).engine.settings.size
        == 256
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"content": "a.jpg"}, "^'style' is empty"),
        ({"content": "a", "style": "s", "colour": "x"}, "unknown column 'colour'"),
        ({"content": "a", "style": '["oops'}, "no JSON"),
        ({"content": "\ud800.jpg", "style": "s"}, "not valid Unicode"),
        ({"content": "a", "style": [{"path": "s", "weight": -1}]}, "weight above 0"),
        ({"content": "a", "style": "s", "output": "../../etc/passwd"}, "relative path"),
        ({"content": "a", "style": "s", "output": "/etc/passwd"}, "relative path"),
        ({"content": "a", "style": "s", "id": "x\ny"}, "control characters"),
        (
            {"content": "a", "style": "s", "style_layers": "{block1_conv1: 1, block1_conv1: 2}"},
            "^style_layers: .* the key 'block1_conv1' stands twice",
        ),
    ],
)
def test_bad_rows(row, message):
    with pytest.raises(InputError, match=message):
        parse_row(row, 7, "", RUN)


def test_odd_names_are_names():
    job = parse_row({"content": "猫" * 82 + ".jpg", "style": "[1890] church.jpg"}, 1, "", RUN)
    assert job.styles == (StyleSource("[1890] church.jpg"),)
    assert len(job.output.encode()) < 240


def test_bad_rows_do_not_stop_the_rest(tmp_path):
    rows = rows_of(
        tmp_path, "m.csv", "content,style,color\na.jpg,s.png,purple\nb.jpg,s.png,match\n"
    )
    assert isinstance(rows[0], BadRow) and "color: 'purple'" in rows[0].message
    assert rows[0].line == 2
    assert config_of(rows[1], RUN).engine.settings.color == "match"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.csv", "content,stile\na,b\n", "no column 'style'"),
        ("m.csv", "content,style,wieght\na,b,1\n", "unknown column 'wieght'"),
        ("m.csv", "content,style\n", "no rows"),
        ("m.doc", "a", "unknown kind"),
        ("m.csv", "a b", "no column 'content'"),
        ("m.parquet", "nonsense", "not a Parquet file"),
    ],
)
def test_unusable_manifests(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ManifestError, match=message):
        count_rows(str(tmp_path / name), RUN)


def test_ten_thousand_rows(tmp_path):
    path = tmp_path / "m.csv"
    lines = "".join(f"photos/{i}.jpg,s.png,{i % 5 + 1}000\n" for i in range(10_000))
    path.write_text("content,style,content_weight\n" + lines)
    assert count_rows(str(path), RUN) == (10_000, [])
    # Photos of one name in folders of their own.
    path.write_text("content,style\n" + "".join(f"{i}/main.jpg,s.png\n" for i in range(50_000)))
    assert count_rows(str(path), RUN) == (50_000, [])


def test_making_manifests(tmp_path, monkeypatch):
    for name in ("p/x/1.jpg", "p/y/1.jpg", "s/a.png", "s/b.png", "s/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    photos, paintings = str(tmp_path / "p/**/*.jpg"), str(tmp_path / "s/*.png")
    template = "{content_dir}/{content_stem}-{style_stem}"
    rows = make_manifest(photos, paintings, name=template, folder=str(tmp_path))
    assert len(rows) == 6
    assert rows[0] == {"content": "p/x/1.jpg", "style": "s/a.png", "output": "x/1-a"}
    drawn = make_manifest(photos, paintings, pair="random:2", seed=5)
    assert len(drawn) == 4 and drawn == make_manifest(photos, paintings, pair="random:2", seed=5)
    assert drawn != make_manifest(photos, paintings, pair="random:2", seed=6)
    # Another painting takes the place of at most one of a photo's.
    (tmp_path / "s/d.png").touch()
    again = make_manifest(photos, paintings, pair="random:2", seed=5)
    assert sum(row in again for row in drawn) >= 2
    (tmp_path / "s/d.png").unlink()
    monkeypatch.chdir(tmp_path)
    here = make_manifest("./p/**/*.jpg", "s/*.png", pair="random:2", seed=5)
    assert here == make_manifest(photos, paintings, pair="random:2", seed=5, folder=str(tmp_path))
    monkeypatch.chdir(tmp_path / "s")
    assert make_manifest("*.png", paintings, name=template)[0]["output"] == "a-a"
    with pytest.raises(InputError, match="2 photos but 3 paintings"):
        make_manifest(photos, paintings, pair="zip")
    with pytest.raises(InputError, match="matches no file"):
        make_manifest("nothing/*", paintings)
    with pytest.raises(InputError, match="fields are"):
        make_manifest(photos, paintings, name="{photo}")
    write_manifest(rows, str(tmp_path / "m.csv"))
    assert count_rows(str(tmp_path / "m.csv"), RUN) == (6, [])


def test_manifests_of_odd_names_can_be_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    odd = ["a\rb.jpg", "c\nd.jpg", 'e",f.jpg', "g\th.jpg", " i;j.jpg "]
    (tmp_path / "p").mkdir()
    for name in [*(f"p/{name}" for name in odd), "s.png"]:
        (tmp_path / name).touch()
    rows = make_manifest("p/*", "s.png", name="{content_stem}")
    for manifest in ("m.csv", "m.tsv", "m.jsonl"):
        write_manifest(rows, manifest)
        jobs = list(read_manifest(manifest, RUN))
        assert [job.content for job in jobs] == sorted(str(tmp_path / "p" / name) for name in odd)
    assert jobs[1].output == "a_b.png"


def test_names_that_are_no_text_are_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir(b"p\xff")
    for name in (
        b"p\xff/1.jpg",
        b"2.jpg",
        b"3\xfe.jpg",
        b"4.jpg",
        *(b"%d.png" % i for i in range(4)),
    ):
        open(name, "w").close()
    for pair, left in (
        ("product", [("2.jpg", f"{i}.png") for i in range(4)]),
        ("zip", [("2.jpg", "0.png"), ("4.jpg", "2.png")]),
    ):
        said = []
        rows = make_manifest("**/*.jpg", "*.png", pair=pair, warn=said.append)
        assert [(row["content"], row["style"]) for row in rows][: len(left)] == left
        assert [text.partition(":")[0] for text in said] == [
            r"left out 3\xfe.jpg",
            r"left out p\xff/1.jpg",
        ]
    with pytest.raises(InputError, match="no pair is left"):
        make_manifest("*/*.jpg", "*.png", warn=said.append)


@pytest.mark.parametrize(
    "name",
    ["{photo}", "{", "}", "{}", "{0}", "{content_stem:>1000000000}", "{content_stem!r}"]
    + ["{content_stem.x}", "{content_stem[0]}", "{content_stem:{style_stem}}"],
)
def test_templates_that_are_none(name):
    with pytest.raises(InputError, match="--name .* fields are {content_dir}, {content_stem}"):
        make_manifest("configs/demo.yaml", "configs/demo.yaml", name=name)


@pytest.mark.parametrize("pair", ["random:²", "random:0", "random:" + "9" * 5000, "random:", "all"])
def test_pairings_that_are_none(pair):
    with pytest.raises(InputError, match="expected product, zip or random:N"):
        make_manifest("configs/demo.yaml", "configs/demo.yaml", pair=pair)


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("sise: 3", [], "unknown key 'sise'; did you mean 'size'"),
        ("size: big", [], "c.yaml: size: 'big'"),
        ("size: [", [], "not valid YAML"),
        ("a", [], "expected `key: value`"),
        ("scales: [{size: 64, steps: 0}]", [], r"scales.0.steps: 0"),
        ("scales: [{size: 64, steps: 2}, {size: 32, steps: 2}]", [], "coarse to fine"),
        ("style_layers: [block9_conv1]", [], "no layer 'block9_conv1'"),
        ("!!python/object/apply:os.system ['true']", [], "not valid YAML"),
        ("{}", ["scales.0.steps=5"], "`scales: auto` has none"),
        ("{}", ["size"], "expected key=value"),
        ("batch_size: 0", [], "at least 1"),
        ("parallelism: yes", [], "parallelism: 'yes'"),
        ("checkpoint_seconds: off", [], "checkpoint_seconds: 'off'"),
        ("size: 64\n\n'size': 32", [], r"c.yaml: line 3: the key 'size' .* first on line 1; keep"),
        ("scales:\n- {size: 64, steps: 2,\n   size: 32}", [], "c.yaml: line 3: the key 'size'"),
        ("<<: {seed: 1, seed: 2}", [], "c.yaml: line 1: the key 'seed' stands twice"),
        ("{}", ["style_layers={block1_conv1: 1, block1_conv1: 2}"], "'block1_conv1' stands twice"),
        ("style_layers: [block1_conv1, block1_conv1]", [], "style_layers: .* a layer stands twice"),
    ],
)
def test_bad_configs(tmp_path, text, overrides, message):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(str(path), overrides)


def test_overrides(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("scales: [{size: 64, steps: 2}]\n")
    config = load_config(str(path), ["scales.0.steps=50", "content_weight=2e3", "color=match"])
    assert config.engine.settings.scales[0].steps == 50
    assert (
        config.engine.settings.content_weight == 2000.0 and config.engine.settings.color == "match"
    )
    assert load_config(None, ["tiling=off"]).tiling == "off"


def test_words_and_numbers_as_people_write_them(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "tiling: off\nenlarge: yes\nmax_pixels: 2e8\nmemory_limit: 8GiB\nmax_file_bytes: 5e+8\n"
        "content_weight: 1.5e3\n"
    )
    config = load_config(str(path))
    assert (config.tiling, config.engine.settings.enlarge, config.max_pixels) == (
        "off",
        True,
        200_000_000,
    )
    assert (config.memory_limit, config.max_file_bytes) == (8 * 2**30, 500_000_000)
    assert config.engine.settings.content_weight == 1500.0


def test_configs_are_valid():
    from pathlib import Path

    paths = sorted(Path("configs").glob("*.yaml"))
    runs = [path for path in paths if path.name != "train.yaml"]
    assert len(runs) == len(paths) - 1 > 3
    for path in runs:
        load_config(str(path))
    load_settings("configs/train.yaml")
