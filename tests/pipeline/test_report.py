"""The report of a run: what it says, that nothing in it can do harm, and how it behaves in a
browser.
"""

import base64
import io
import json
import re
import shutil
import time

import numpy as np
import pyarrow.parquet
import pytest
import yaml
from PIL import Image

from nst_ops.errors import InputError
from pipeline.config.run_config import RunConfig
from pipeline.jobs.job import Job, StyleSource
from pipeline.report import page as report_page
from pipeline.report import thumbnails
from pipeline.report.comparison import group_failures
from pipeline.report.history import loss_curves, read_run
from pipeline.report.page import render, write_report
from pipeline.report.thumbnails import thumbnail
from pipeline.store import files, layout, metadata

from ..chromium import chromium
from ..conftest import IMAGES

FIRST, SECOND, THIRD = (f"2026010{day}T220000Z-abcdef" for day in (1, 2, 3))
EVIL = "<script>alert(1)</script>.jpg"


def make_row(folder, run_id, line, status="ok", *, content="rocket.jpg", style="cat.jpg", **values):
    """A row of a job whose files lie in `folder`/in."""
    content, style = (str(folder / "in" / name) for name in (content, style))
    job = Job(line, f"job-{line}", content, (StyleSource(style),), f"picture-{line}.png")
    made = dict(height=80, width=120, seconds_total=2.0, batch_size=1) if status == "ok" else {}
    return metadata.row(run_id, job, status, **made | values)


def write_run(folder, run_id, rows, summary=None, part="-00000-of-00001", **settings):
    """Leaves a run as the pipeline does."""
    table = pyarrow.Table.from_pylist(rows, schema=metadata.schema())
    metadata.write_metadata(str(folder), run_id, f"part{part}.parquet", [table])
    if summary is None:
        versions = metadata.versions()
        summary = {"seconds": 3600.0, "manifest": "m.csv", "stopped": "", "versions": versions}
    record = layout.record_folder(str(folder), run_id)
    files.write(files.join(record, "summary.json"), json.dumps(summary).encode())
    config = RunConfig.model_validate(settings).model_dump(mode="json")
    files.write(files.join(record, "config.yaml"), yaml.safe_dump(config).encode())


def read_report(folder, run_id=FIRST):
    """The report's text without space between elements, and the data in it."""
    text = re.sub(r">\s+<", "><", (folder / "runs" / run_id / "report.html").read_text())
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return text, json.loads(found[1])


def curve(totals, scale=0):
    return [
        {"scale": scale, "step": i + 1, "total": v, "content": v / 2, "style": v / 4, "tv": 0.0}
        for i, v in enumerate(totals)
    ]


def pixels_of(thumbnail):
    data = base64.b64decode(thumbnail.removeprefix("data:image/jpeg;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.fixture
def folder(tmp_path):
    """A run's folder with photos beside it, and no run yet."""
    (tmp_path / "in").mkdir()
    for name in ("rocket", "cat", "coffee"):
        shutil.copy(IMAGES / f"{name}.jpg", tmp_path / "in")
    return tmp_path / "out" / "night"


def rows_beside(folder, run_id, statuses, **values):
    return [
        make_row(folder.parent.parent, run_id, line, status, **values)
        for line, status in enumerate(statuses, 2)
    ]


def test_pictures_and_counts(folder):
    images = folder / "images"
    images.mkdir(parents=True)
    shutil.copy(IMAGES / "coffee.jpg", images / "picture-2.png")
    write_run(folder, FIRST, rows_beside(folder, FIRST, ["ok", "cached", "deferred"]), steps=9)
    path = write_report(str(folder), FIRST)
    assert path == str(folder / "runs" / FIRST / "report.html")
    text, data = read_report(folder)
    for fact in ("<dt>ok</dt><dd>1</dd>", "<dt>cached</dt><dd>1</dd>", "<dt>failed</dt><dd>0</dd>"):
        assert fact in text
    assert "steps 9" in text and "1:00:00" in text
    named = {path.rpartition("/")[2]: (link, thumb) for path, link, thumb in data["files"]}
    assert len(named) == len(data["files"]) == 4  # the photo and the painting once each
    assert named["rocket.jpg"][0] == (folder.parent.parent / "in/rocket.jpg").as_uri()
    assert named["picture-2.png"][0] == "../../images/picture-2.png"
    assert pixels_of(named["picture-2.png"][1]).shape == (85, 128, 3)  # of 400x600
    assert named["picture-3.png"][1] == ""  # missing
    assert data["columns"]["result"][2] is None  # deferred


def test_nothing_but_our_script_can_run(folder):
    """A file's name and an error's text are text wherever they appear."""
    evil = folder.parent.parent / "in" / EVIL
    evil.parent.mkdir(parents=True)
    shutil.copy(IMAGES / "cat.jpg", evil)
    attack = "</script><img src=x onerror=alert(2)>"
    rows = rows_beside(folder, FIRST, ["ok"], content=EVIL)
    rows += [make_row(folder, FIRST, 9, "failed", error_type="InputError", error_message=attack)]
    rows[1]["content"] = "javascript://%0aalert(3)"
    write_run(folder, FIRST, rows)
    write_report(str(folder), FIRST)
    text, data = read_report(folder)
    assert "<script>alert" not in text and "<img" not in text
    assert len(re.findall(r"<script\b", text)) == 2  # the data and ours
    assert "script-src 'sha256-" in text and "default-src 'none'" in text
    assert data["columns"]["error_message"][1] == attack
    links = {path: link for path, link, _ in data["files"]}
    assert links[str(evil)] == evil.as_uri() and "%3Cscript" in evil.as_uri()
    assert links["javascript://%0aalert(3)"] is None


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "CMYK", "I;16"])
def test_thumbnails_of_all_kinds(tmp_path, mode):
    """Left half bright and right half dark stay so, turned as EXIF asks."""
    levels = np.zeros((40, 200), np.uint8)
    levels[:, :100] = 255
    image = Image.fromarray(levels)
    if mode == "I;16":
        image = Image.fromarray(levels.astype(np.uint16) * 257)
    elif mode != "L":
        image = image.convert("RGB").convert(mode)
    path = tmp_path / "picture.tif"
    exif = Image.Exif()
    exif[0x0112] = 6  # 90 degrees clockwise, to be shown upright
    image.save(path, exif=exif)
    pixels = pixels_of(thumbnail(str(path))).mean(axis=2)
    assert pixels.shape == (128, 26)
    assert pixels[:50].mean() > 240 and pixels[-50:].mean() < 15


@pytest.mark.parametrize("data", [b"", b"<html>", (IMAGES / "cat.jpg").read_bytes()[:3000]])
def test_damaged_pictures_have_no_thumbnail(tmp_path, data):
    (tmp_path / "picture.jpg").write_bytes(data)
    assert thumbnail(str(tmp_path / "picture.jpg")) == ""


def test_thumbnails_end_with_the_rows_and_the_time(folder, monkeypatch):
    rows = rows_beside(folder, FIRST, ["failed"]) + rows_beside(
        folder, FIRST, ["failed"], content="coffee.jpg"
    )
    rows[1]["manifest_line"] = 3
    write_run(folder, FIRST, rows)
    monkeypatch.setattr(report_page, "_ROWS_WITH_THUMBNAILS", 1)
    write_report(str(folder), FIRST)
    made = [thumbnail for *_, thumbnail in read_report(folder)[1]["files"]]
    assert [bool(thumbnail) for thumbnail in made] == [True, True, False]
    assert made[2] is None
    monkeypatch.setattr(thumbnails, "_SECONDS", 0.0)
    write_report(str(folder), FIRST)
    assert all(thumbnail is None for *_, thumbnail in read_report(folder)[1]["files"])


def test_failures_by_reason(folder):
    def failed(line, message, path=None):
        return make_row(
            folder, FIRST, line, "failed", error_type="E", error_message=message, error_path=path
        )

    rows = [
        failed(1, "/a/b 1.jpg: 8x300 px is too small", "/a/b 1.jpg"),
        failed(2, "/c.jpg: 12x400 px is too small", "/c.jpg"),
        failed(3, "block5_conv1 of s3://x/y is missing"),
        failed(4, "block5_conv1 of /mnt/z is missing"),
        failed(5, "block4_conv2 of /mnt/z is missing"),
    ]
    assert group_failures(rows) == [
        {"label": "E: N px is too small", "lines": [1, 2]},
        {"label": "E: block5_conv1 of … is missing", "lines": [3, 4]},
        {"label": "E: block4_conv2 of … is missing", "lines": [5]},
    ]


def test_comparison_with_the_run_before(folder):
    before = rows_beside(folder, FIRST, ["ok", "ok", "failed", "ok", "ok"])
    now = rows_beside(folder, THIRD, ["ok", "cached", "ok", "failed"])
    for row in (*before, *now):
        row["job_id"] = "one of many"  # an id may stand at many rows
    now[0] |= {"seconds_total": 16.0, "batch_size": 4}  # 4 s each
    now.append(make_row(folder, THIRD, 40))
    write_run(folder, FIRST, before, steps=8)
    write_run(folder, SECOND, before, {"shard": "1/2", "stopped": "it was killed"})
    write_run(folder, THIRD, now, steps=12)
    write_report(str(folder), SECOND)  # with the short summary of a run that was killed
    text = read_report(folder, SECOND)[0]
    assert "it was killed" in text and "Since the run before" not in text
    write_report(str(folder), THIRD)
    text, data = read_report(folder, THIRD)
    assert FIRST in text and SECOND not in text  # another shard's rows are no comparison
    changes = {group["label"]: group["lines"] for group in data["groups"]["changes"]}
    assert changes == {"failed → ok": [4], "ok → failed": [5], "new → ok": [40]}
    assert "Markedly slower: 1 row<" in text
    assert '2.0 s</td><td class="number">4.0 s</td><td class="number">2.0</td>' in text
    assert '<th scope="row">steps</th><td class="mono">8</td><td class="mono">12</td>' in text
    assert "no longer in the manifest: 1." in text


def test_rows_kept_twice_count_once(folder):
    rows = rows_beside(folder, FIRST, ["ok", "ok"])
    write_run(folder, FIRST, rows)
    write_run(folder, FIRST, rows[1:], part="-recovered")
    write_report(str(folder), FIRST)
    text, data = read_report(folder)
    assert data["columns"]["manifest_line"] == [2, 3] and "<dt>ok</dt><dd>2</dd>" in text


def test_of_too_many_rows_some_are_shown_and_all_are_counted(folder, monkeypatch):
    statuses = ["cached"] * 60 + ["failed"] * 40
    rows = rows_beside(folder, FIRST, statuses)
    for row in rows[60:]:
        row |= {"error_type": "E", "error_message": "too small"}
    write_run(folder, FIRST, rows)
    run, before = (read_run(str(folder), FIRST, most_rows=most) for most in (30, 0))
    shown = [row["status"] for row in run.rows]
    assert (shown.count("cached"), shown.count("failed"), before.rows) == (15, 15, [])
    assert len({row["manifest_line"] for row in run.rows}) == 30
    text = re.sub(r"\s+", " ", render(str(folder), run, before))
    assert "Shown are 30 rows of 100 rows" in text and "<dt>failed</dt><dd>40</dd>" in text
    assert '"lines":[' in text and "40 rows, reasons: 1" in text
    assert read_run(str(folder), FIRST).rows[-1]["manifest_line"] == 101  # few: all


def test_loss_curves_are_thinned_and_true(folder):
    coarse, fine = np.geomspace(1.0, 1e-2, 100), np.geomspace(0.5, 1e-3, 50)
    points = curve(coarse) + curve([*fine, float("nan")], scale=1)
    rows = rows_beside(folder, FIRST, ["ok"], loss_curve=points) + rows_beside(
        folder, FIRST, ["cached"]
    )
    table = pyarrow.Table.from_pylist(rows, schema=metadata.schema())
    thinned, none = loss_curves(table)
    assert none is None and thinned["steps"] == 151 and thinned["starts"] == [0, 100]
    levels = np.cumsum(thinned["content"]) / 1000
    assert len(levels) == 60
    kept = np.linspace(0, 150, 60).round().astype(int)[:-1]
    expected = np.log10(np.concatenate([coarse, fine])[kept] / 2)
    np.testing.assert_allclose(levels[:-1], expected, atol=0.00051)
    assert levels[-1] == np.cumsum(thinned["tv"])[0] / 1000 == -9.0  # no number, and zero


@pytest.mark.parametrize("statuses", [[], ["cached"], ["deferred"]])
def test_a_run_that_made_nothing(folder, statuses):
    write_run(folder, FIRST, rows_beside(folder, FIRST, statuses))
    write_report(str(folder), FIRST)
    text, data = read_report(folder)
    assert len(data["columns"]["status"]) == len(statuses)
    assert '<dt>Median picture</dt><dd class="">–</dd>' in text


def test_a_run_that_is_not_there(folder):
    write_run(folder, FIRST, rows_beside(folder, FIRST, ["ok"]))
    with pytest.raises(InputError, match=f"{SECOND}.*known: .*{FIRST}"):
        write_report(str(folder), SECOND)


# In a browser


@pytest.fixture(scope="module")
def browser():
    with chromium("--window-size=1400,1000") as opened:
        yield opened


@pytest.fixture(scope="module")
def page(browser, tmp_path_factory):
    """The report of 3,000 rows, every tenth of which failed, as a URL."""
    folder = tmp_path_factory.mktemp("browser")
    (folder / "in" / EVIL).parent.mkdir(parents=True)
    for name in ("in/rocket.jpg", "in/cat.jpg", f"in/{EVIL}", "in/late.jpg", "images/picture.png"):
        files.write(str(folder / name), (IMAGES / "cat.jpg").read_bytes())
    facts = dict(loss_first=1.0, loss_last=0.01, loss_curve=curve([1.0, 0.1, 0.01]))
    good = make_row(folder, FIRST, 1, output="picture.png", **facts)
    facts = dict(error_type="InputError", error_message="gone")
    bad = make_row(folder, FIRST, 1, "failed", content=EVIL, **facts)
    rows = [
        (good if line % 10 else bad) | {"manifest_line": line, "job_id": f"job-{line}"}
        for line in range(1, 3001)
    ]
    for row in rows:
        row["seconds_total"] = float(row["manifest_line"] % 97) if row["status"] == "ok" else None
    rows[-1]["content"] = str(folder / "in/late.jpg")  # beyond the last thumbnail
    write_run(folder, FIRST, rows)
    return f"file://{write_report(str(folder), FIRST)}"


@pytest.fixture
def find(browser, page):
    """Finds elements of the fresh page; proves afterwards that it kept to itself."""
    browser.get("about:blank")
    browser.get_log("browser"), browser.get_log("performance")
    browser.get(page)
    yield lambda selector: browser.find_elements("css selector", selector)
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {
        message["params"]["request"]["url"].partition("#")[0]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    }
    assert page in asked and all(url.startswith(("file://", "data:")) for url in asked)
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def until(condition):
    """Waits for what a changed address brings about, which is not at once."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def lines_of(find):
    return [int(button.text) for button in find("#rows .line button")]


def test_pages_filters_search_and_order(find):
    assert lines_of(find) == list(range(1, 51))
    assert find("#shown")[0].text == "1–50 of 3,000 rows" and not find("#previous")[0].is_enabled()
    find("#next")[0].click()
    assert lines_of(find)[0] == 51 and find("#page")[0].text == "Page 2 of 60"
    find("[data-status=failed]")[0].click()
    assert find("#shown")[0].text == "1–50 of 300 rows" and lines_of(find)[:2] == [10, 20]
    find("#search")[0].send_keys("JOB-300 gone")
    assert lines_of(find) == [300, 3000]
    find("#search")[0].send_keys("\ue003" * 12)  # backspace
    find("[data-status=all]")[0].click()
    for _ in range(2):
        find("#rows thead th:nth-child(8) button")[0].click()
    assert find("[aria-sort=descending]")[0].text.strip("↓ ") == "Seconds"
    assert lines_of(find)[:3] == [96, 193, 387]  # 290 failed
    assert find("#rows tbody tr td:nth-child(8)")[0].text == "96.0"


def test_loss_curve_opens_and_closes_by_keyboard(find, browser):
    button = find("#rows .line button")[0]
    assert not find(".curve") and button.get_attribute("aria-expanded") == "false"
    button.send_keys("\n")
    assert button.get_attribute("aria-expanded") == "true"
    assert "Loss from 1.00 to 0.0100 in 3 steps" in find(".curve")[0].get_attribute("aria-label")
    drawn = {path.get_attribute("class") for path in find(".curve path")}
    assert drawn == {"total", "content", "style"}  # tv is zero throughout
    (total,) = find(".curve path.total")
    heights = [float(y) for y in re.findall(r",([\d.]+)", total.get_attribute("d"))]
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=0.3)  # log axis
    button.send_keys("\n")
    assert not find(".curve")


def test_links_lead_to_rows_and_groups(find, browser):
    find('a[href="#failures-0"]')[0].click()
    until(lambda: find("#shown")[0].text == "1–50 of 300 rows")
    assert "gone" in find("#group")[0].text
    find("#group")[0].click()
    assert find("#shown")[0].text == "1–50 of 3,000 rows"
    browser.execute_script("location.hash = 'line-3000'")
    until(lambda: find("tr.target"))
    (row,) = find("tr.target")
    assert row.text.startswith("3000") and find("#page")[0].text == "Page 60 of 60"
    assert browser.switch_to.active_element.text == "3000" and find(".more")
    (image,) = row.find_elements("css selector", "img[src$='late.jpg']")
    loaded = "const [i, done] = arguments; i.decode().then(() => done(i.naturalWidth))"
    assert browser.execute_async_script(loaded, image) == Image.open(IMAGES / "cat.jpg").width


def test_a_hostile_name_is_a_name(find):
    (name,) = find('tr:nth-child(10) td:nth-child(2) [title$="<script>alert(1)</script>.jpg"]')
    assert name.text == "script>.jpg"
    assert name.find_element("tag name", "img").get_attribute("naturalWidth") == "128"


def test_thumbnails_are_shared(find, browser):
    """Fifty rows of one photo hold one string."""
    assert len(find("#rows tbody img")) > 100
    text = browser.execute_script("return document.getElementById('data').textContent")
    assert text.count("data:image/jpeg") == 4
