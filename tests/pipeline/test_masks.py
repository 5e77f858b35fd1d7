"""Masks and trimmed margins: as columns of a manifest and for nst stylize, in hashes and errors."""

import json

import numpy as np
import pytest
from PIL import Image

from nst_ops.images.codec import decode
from pipeline.cli.main import main
from pipeline.manifest.reader import read_manifest
from pipeline.store.metadata import read_metadata

from ..conftest import IMAGES
from .conftest import QUICK, count_rows, plans, settings

PHOTO, PAINTINGS = IMAGES / "cat.jpg", [IMAGES / "pere_tanguy.jpg", IMAGES / "langlois_bridge.jpg"]


def half(path, size=(96, 64), white="left"):
    """A mask of which one half is white; size is (width, height)."""
    pixels = np.zeros(size[::-1], np.uint8)
    middle = size[0] // 2
    pixels[:, : middle if white == "left" else None] = 255
    if white == "right":
        pixels[:, :middle] = 0
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def left(tmp_path):
    return half(tmp_path / "left.png")


def write(tmp_path, *rows):
    manifest = tmp_path / "pairs.jsonl"
    manifest.write_text("".join(json.dumps(row, default=str) + "\n" for row in rows))
    return manifest


def row(**columns):
    return {"content": PHOTO, "style": PAINTINGS, **columns}


def jobs(manifest):
    return list(read_manifest(str(manifest), settings()))


@pytest.mark.parametrize(
    ("masks", "expected"),
    [
        (["left.png", None], [("left.png", ""), ("", "")]),
        ([{"photo": "left.png", "painting": "p.png"}, ""], [("left.png", "p.png"), ("", "")]),
        ('["left.png", {"painting": "p.png"}]', [("left.png", ""), ("", "p.png")]),
    ],
)
def test_masks_are_paths_by_painting(tmp_path, masks, expected):
    (job,) = jobs(write(tmp_path, row(masks=masks, keep="k.png")))
    found = [(style.photo_mask, style.painting_mask) for style in job.styles]
    expected = [tuple(name and str(tmp_path / name) for name in pair) for pair in expected]
    assert found == expected and job.keep == str(tmp_path / "k.png")


def test_one_mask_of_one_painting_needs_no_list(tmp_path):
    manifest = tmp_path / "pairs.csv"
    manifest.write_text(f"content,style,masks,keep\n{PHOTO},{PAINTINGS[0]},left.png,\n")
    (job,) = jobs(manifest)
    assert job.styles[0].photo_mask == str(tmp_path / "left.png") and not job.keep


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"masks": ["left.png"]}, "masks: 1 for 2 paintings"),
        ({"masks": "[left.png"}, "begins like a list but is no JSON"),
        ({"masks": [{"picture": "left.png"}, None]}, "is not a path, null, or {photo"),
        ({"masks": [3, None]}, "masks: 3 is not a path"),
        ({"keep": ["left.png"]}, "keep: ['left.png'] is not a path"),
    ],
)
def test_cells_that_are_no_masks_are_bad_rows(tmp_path, columns, message):
    count, bad = count_rows(write(tmp_path, row(**columns), row()), settings())
    assert count == 2 and len(bad) == 1 and message in bad[0].message


def test_rows_that_differ_in_masks_have_different_names(tmp_path):
    found = jobs(write(tmp_path, row(), row(masks=["a.png", None]), row(keep="a.png")))
    assert len({job.output for job in found}) == 3


def test_masks_are_part_of_the_identity(tmp_path, left):
    right = half(tmp_path / "right.png", white="right")
    same = half(tmp_path / "same.png")
    manifest = write(
        tmp_path,
        *(row(masks=[mask, None]) for mask in (left, right, same)),
        row(masks=[{"photo": left, "painting": None}, None], keep=right),
        row(masks=[None, left]),
        row(),
    )
    hashes = [planned.spec_hash for planned in plans(manifest, settings())]
    assert hashes[0] == hashes[2]  # the same bytes under another name
    assert len(set(hashes)) == 5


def test_pictures_with_masks_are_made_once_and_say_so(tmp_path, left, run_manifest):
    small = half(tmp_path / "small.png", (30, 20), "right")
    manifest = write(tmp_path, row(id="m", masks=[left, None], keep=small), row(id="plain"))
    summary = run_manifest(manifest)
    assert (summary["ok"], summary["failed"]) == (2, 0)
    rows = {
        each["job_id"]: each
        for each in read_metadata(str(tmp_path / "out"), summary["run_id"]).to_pylist()
    }
    assert rows["m"]["masks"] == [
        {"photo": str(left), "painting": None},
        {"photo": None, "painting": None},
    ]
    assert rows["m"]["keep"] == str(small)
    assert rows["plain"]["masks"] is None and rows["plain"]["keep"] is None
    picture = decode((tmp_path / "out/images/m.png").read_bytes()).pixels
    photo = decode(PHOTO.read_bytes(), long_side=64).pixels
    kept = slice(-26, None)  # its edge is soft, as the mask was enlarged
    np.testing.assert_allclose(picture[:, kept], photo[:, kept], atol=0.5 / 255 + 1e-6)
    assert np.abs(picture - photo)[:, :20].mean() > 0.02
    assert run_manifest(manifest)["cached"] == 2
    half(small, (60, 40), "right")
    again = run_manifest(manifest)
    assert (again["ok"], again["cached"]) == (1, 1)


def test_a_bad_mask_costs_only_its_row(tmp_path, left, run_manifest):
    """Of four that would be made together."""
    half(tmp_path / "square.png", (64, 64))
    Image.fromarray(np.zeros((64, 96), np.uint8)).save(tmp_path / "black.png")
    Image.fromarray(np.full((64, 96), 255, np.uint8)).save(tmp_path / "white.png")
    (tmp_path / "text.png").write_text("no image")
    bad = {
        "square.png": "another aspect",
        "black.png": "is black",
        "text.png": "not a PNG",
        "missing.png": "missing.png",
        "white.png": "they take all of the photo",  # the second painting has no place left
    }
    manifest = write(
        tmp_path,
        row(id="good", masks=[left, None]),
        *(row(id=name, masks=[name, None]) for name in bad),
        row(id="plain"),
    )
    summary = run_manifest(manifest, settings(batch_size=8))
    assert (summary["ok"], summary["failed"]) == (2, len(bad))
    for each in read_metadata(str(tmp_path / "out"), summary["run_id"]).to_pylist():
        if each["job_id"] in bad:
            assert bad[each["job_id"]] in each["error_message"]
        else:
            assert each["status"] == "ok"


def test_validate_names_masks_of_another_aspect(tmp_path, capsys):
    half(tmp_path / "square.png", (64, 64))
    manifest = write(tmp_path, row(masks=["square.png", None]), row(keep="gone.png"), row())
    assert main(["validate", "--manifest", str(manifest), "--speed", "none", *options()]) == 2
    said = capsys.readouterr().out
    assert "masks that cannot be used: 2" in said
    assert "another aspect" in said and "gone.png" in said


def test_a_mask_is_never_written_over(tmp_path, left, capsys):
    before = left.read_bytes()
    pair = ["stylize", str(PHOTO), str(PAINTINGS[0])]
    assert main([*pair, "--keep", str(left), "-o", str(left), *options()]) == 2
    assert "would replace" in capsys.readouterr().err and left.read_bytes() == before


def options():
    return [f"--set={key}={json.dumps(value)}" for key, value in QUICK.items()]


def test_stylize_takes_masks(tmp_path, left, capsys):
    output = tmp_path / "out.png"
    pair = ["stylize", str(PHOTO), *map(str, PAINTINGS)]
    white = tmp_path / "white.png"
    Image.fromarray(np.full((64, 96), 255, np.uint8)).save(white)
    masks = ["--masks", "-", str(left), "--keep", str(white)]
    assert main([*pair, *masks, "-o", str(output), *options()]) == 1
    assert "painting 1, with none" in capsys.readouterr().err  # `keep` takes all of it
    assert main([*pair, *masks[:3], "-o", str(output), *options()]) == 0
    assert decode(output.read_bytes()).pixels.shape == (43, 64, 3)
    assert main([*pair, "--masks", str(left), "-o", str(output), *options()]) == 2
    assert "masks: 1 for 2 paintings" in capsys.readouterr().err


def with_margin(path, px, color=(245, 243, 238)):
    painting = decode(PAINTINGS[0].read_bytes()).pixels
    scan = np.pad(painting, [[px, px], [px, px], [0, 0]], constant_values=1.0)
    noise = np.random.default_rng(0).normal(0, 0.01, scan.shape)
    paper = np.array(color) / 255 + noise
    inside = np.zeros(scan.shape[:2], bool)
    inside[px:-px, px:-px] = True
    scan = np.where(inside[..., None], scan, paper)
    Image.fromarray((scan.clip(0, 1) * 255).astype("u1")).save(path, quality=90)
    return path


def test_the_margin_of_a_scan_is_left_out_and_told(tmp_path, run_manifest, capsys):
    scan = with_margin(tmp_path / "scan.jpg", 8)
    manifest = write(
        tmp_path,
        {"content": PHOTO, "style": scan, "id": "auto"},
        {"content": PHOTO, "style": scan, "id": "off", "trim": "off"},
        {"content": PHOTO, "style": scan, "id": "8", "trim": 8},
        {"content": PHOTO, "style": scan, "id": "all", "trim": 300},
    )
    summary = run_manifest(manifest)
    assert (summary["ok"], summary["failed"]) == (3, 1)
    rows = {
        each["job_id"]: each
        for each in read_metadata(str(tmp_path / "out"), summary["run_id"]).to_pylist()
    }
    trims = {name: each["style_trims"] for name, each in rows.items()}
    assert trims["off"] == [dict.fromkeys(("top", "bottom", "left", "right"), 0)]
    assert trims["8"] == [dict.fromkeys(("top", "bottom", "left", "right"), 8)]
    assert all(8 <= px <= 10 for px in trims["auto"][0].values())
    assert "leave nothing" in rows["all"]["error_message"]
    assert len({each["spec_hash"] for each in rows.values()}) == 4
    pair = ["stylize", str(PHOTO), str(scan), "-o", str(tmp_path / "o.png")]
    assert main([*pair, *options()]) == 0
    assert "left out a margin, top" in capsys.readouterr().err


def test_a_painting_mask_is_drawn_on_the_whole_scan(tmp_path, run_manifest):
    scan = with_margin(tmp_path / "scan.jpg", 30)
    with Image.open(scan) as image:
        mask = half(tmp_path / "mask.png", image.size)
    manifest = write(
        tmp_path, {"content": PHOTO, "style": scan, "masks": [{"painting": mask}], "id": "m"}
    )
    assert run_manifest(manifest)["ok"] == 1


def test_a_mask_on_transparency_is_black_there(tmp_path, left, run_manifest):
    """As image editors export a layer."""
    with Image.open(left) as image:
        grey = image.convert("L")
        layer = Image.merge("RGBA", [Image.new("L", grey.size, 255)] * 3 + [grey])
    layer.save(tmp_path / "layer.png")
    manifest = write(
        tmp_path, *(row(id=name, masks=[f"{name}.png", None]) for name in ("left", "layer"))
    )
    assert run_manifest(manifest)["ok"] == 2
    pictures = [decode((tmp_path / f"out/images/{n}.png").read_bytes()) for n in ("left", "layer")]
    np.testing.assert_allclose(pictures[0].pixels, pictures[1].pixels, atol=0.02)


def test_masks_that_were_saved_with_1_for_white_say_so(tmp_path, left, run_manifest):
    with Image.open(left) as image:
        image.convert("L").point(lambda value: value // 255).save(tmp_path / "labels.png")
    manifest = write(tmp_path, row(id="m", masks=["labels.png", None]), row(keep="labels.png"))
    summary = run_manifest(manifest)
    assert summary["failed"] == 2
    for each in read_metadata(str(tmp_path / "out"), summary["run_id"]).to_pylist():
        assert "1 of 255 at most" in each["error_message"]
        assert each["error_path"] == str(tmp_path / "labels.png")


def test_a_painting_mask_within_the_margin_says_so(tmp_path, run_manifest):
    scan = with_margin(tmp_path / "scan.jpg", 30)
    with Image.open(scan) as image:
        mask = Image.new("L", image.size)
    mask.paste(255, (0, 0, 20, 20))
    mask.save(tmp_path / "mask.png")
    manifest = write(
        tmp_path, {"content": PHOTO, "style": scan, "masks": [{"painting": "mask.png"}]}
    )
    summary = run_manifest(manifest)
    (found,) = read_metadata(str(tmp_path / "out"), summary["run_id"]).to_pylist()
    assert "only in the margin" in found["error_message"] and "trim: off" in found["error_message"]


def test_no_mask_in_a_cell_or_on_the_command_line(tmp_path, left, capsys):
    (job,) = jobs(write(tmp_path, {"content": PHOTO, "style": PAINTINGS[0], "masks": "null"}))
    assert not job.masks
    output = str(tmp_path / "o.png")
    pair = ["stylize", str(PHOTO), str(PAINTINGS[0]), "--masks", "-", "--keep", "-", "-o", output]
    assert main([*pair, *options()]) == 0
    with pytest.raises(ValueError, match="trim"):
        settings(trim=True)
