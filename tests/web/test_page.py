"""The page in a real browser: what it paints is what Python paints, and nothing stops it."""

import contextlib
import http.server
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from pipeline.web.server import serve

from ..conftest import IMAGES
from .conftest import FAKE_CAMERA, open_page, serving

NEAR = 2.55  # of 255: 1e-2
STYLES = ("cafe_terrace_at_night", "church_at_auvers", "langlois_bridge", "pere_tanguy")


def png(path, name="cat", size=(203, 149), alpha=None):
    """Writes an example photo of (width, height) as PNG; returns the path."""
    image = Image.open(IMAGES / f"{name}.jpg").convert("RGB").resize(size)
    if alpha is not None:
        image.putalpha(Image.fromarray(alpha))
    image.save(path)
    return path


def distance(picture, expected) -> float:
    assert picture.shape[:2] == expected.shape[:2]
    return np.abs(picture[..., :3].astype(float) - expected).max()


def near(picture, expected):
    assert distance(picture, expected) <= NEAR


def test_paints_what_python_paints(page, tmp_path, expected):
    path = png(tmp_path / "my cat.png")
    page.choose(path)
    page.painted((149, 203))
    near(page.saved(), expected(path.read_bytes(), **{STYLES[0]: 1.0}))
    assert page.saved_name == f"my cat-{STYLES[0]}.png"
    assert page.text("problem") == ""


def test_paints_a_large_photo_in_tiles_as_python_does(page, tmp_path, expected):
    path = png(tmp_path / "large.png", "coffee", (1301, 701))
    page.choose(path)
    page.wait_for("status", "part 2 of 2")
    page.painted((701, 1301))
    near(page.saved(), expected(path.read_bytes(), **{STYLES[0]: 1.0}))


def test_a_strip_is_painted(page, tmp_path, expected):
    path = png(tmp_path / "strip.png", "coffee", (2000, 40))
    page.choose(path)
    page.painted((40, 2000))
    near(page.saved(), expected(path.read_bytes(), **{STYLES[0]: 1.0}))


def test_an_address_carries_style_blend_strength_and_size(
    browser_page, address, tmp_path, expected
):
    chosen = f"?style={STYLES[3]}&with={STYLES[1]}&mix=0.25&strength=0.6&size=256"
    page = browser_page.open(address + chosen)
    path = png(tmp_path / "photo.png", "rocket", (400, 300))
    page.choose(path)
    said = page.painted((192, 256))
    assert "the photo has 400 × 300 px" in said
    weights = {STYLES[3]: 0.75, STYLES[1]: 0.25}
    near(page.saved(), expected(path.read_bytes(), 256, 0.6, **weights))
    page.set("strength", 40)
    for value in range(100, 39, -1):  # a hand that drags
        page.set("strength", value)
    page.wait(lambda: "strength=0.4" in page.browser.current_url, "the address")
    assert chosen.partition("&strength")[0] in page.browser.current_url


def test_nonsense_in_an_address_is_left_out(browser_page, address):
    page = browser_page.open(f"{address}?style=<b>&with=nobody&mix=x&strength=-9&size=1e99")
    assert page.run("return document.querySelector('[name=style]:checked').value") == STYLES[0]
    assert page.text("strength_value") == "0 %"
    assert page.text("problem") == ""


def test_choices_paint_anew_and_strength_does_not(page, tmp_path, expected):
    path = png(tmp_path / "photo.png")
    data = path.read_bytes()
    page.choose(path)
    page.painted((149, 203))
    page.set("strength", 50)
    near(page.saved(), expected(data, strength=0.5, **{STYLES[0]: 1.0}))
    page.set("strength", 100)
    before = page.saved()
    page.find("styles").find_elements("css selector", "input")[2].send_keys(" ")
    page.wait(lambda: not np.array_equal(page.saved(), before), "another style")
    near(page.saved(), expected(data, **{STYLES[2]: 1.0}))
    page.set("with", STYLES[0])
    page.set("mix", 50)
    half = expected(data, **{STYLES[2]: 0.5, STYLES[0]: 0.5})
    page.wait(lambda: distance(page.saved(), half) <= NEAR, "a blend")


def test_a_photo_is_turned_upright(page, tmp_path):
    image = Image.open(png(tmp_path / "photo.png", size=(200, 120)))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    page.choose(tmp_path / "turned.jpg")
    page.painted((200, 120))


def test_alpha_is_kept_and_hidden_colours_do_not_show(page, tmp_path, expected):
    alpha = np.full((149, 203), 255, np.uint8)
    alpha[:60], alpha[60:90, :100] = 0, 140
    path = png(tmp_path / "cut out.png", alpha=alpha)
    page.choose(path)
    page.painted((149, 203))
    picture = page.saved()
    assert np.array_equal(picture[..., 3], alpha)
    wanted = expected(path.read_bytes(), **{STYLES[0]: 1.0})
    # A canvas multiplies alpha in: it forgets what is not seen, and rounds what is half seen.
    error = np.abs(picture[..., :3] - wanted)[alpha > 0]
    assert np.mean(error <= NEAR) > 0.99
    assert error.max() < 10.0


def test_dropped_and_pasted_photos_are_painted(page, site_folder):
    page.run(
        """fetch('photos/cat.jpg').then((answer) => answer.blob()).then((blob) => {
          const data = new DataTransfer();
          data.items.add(new File([blob], 'dropped.jpg', {type: 'image/jpeg'}));
          document.dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true}));
        })"""
    )
    page.painted((300, 451))
    page.saved()
    assert page.saved_name.startswith("dropped-")
    page.run(
        """fetch('styles/1.jpg').then((answer) => answer.blob()).then((blob) => {
          const data = new DataTransfer();
          data.items.add(new File([blob], 'pasted.jpg', {type: 'image/jpeg'}));
          document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data}));
        })"""
    )
    page.painted(Image.open(site_folder / "styles" / "1.jpg").size[::-1])
    page.saved()
    assert page.saved_name.startswith("pasted-")


@pytest.mark.parametrize("size", [(1, 1), (50, 40), (3, 300)])
def test_small_photos_are_painted(page, tmp_path, expected, size):
    path = png(tmp_path / "small.png", size=size)
    page.choose(path)
    page.painted(size[::-1])
    near(page.saved(), expected(path.read_bytes(), **{STYLES[0]: 1.0}))


DROP_TWO = """
const answers = ['photos/cat.jpg', 'styles/1.jpg'].map((name) => fetch(name));
const blobs = Promise.all(answers).then((found) => Promise.all(found.map((each) => each.blob())));
blobs.then((both) => {
  for (const [number, blob] of both.entries()) {
    const data = new DataTransfer();
    data.items.add(new File([blob], `${number}.jpg`, {type: 'image/jpeg'}));
    document.dispatchEvent(new DragEvent('drop', {dataTransfer: data}));
  }
})
"""


def test_of_two_photos_the_newer_is_painted(page, site_folder):
    page.run(
        """const open = createImageBitmap;
        let slow = true;
        window.createImageBitmap = async (...given) => {
          if (slow) { slow = false; await new Promise((resolve) => setTimeout(resolve, 1500)); }
          return open(...given);
        }"""
    )
    page.run(DROP_TWO)
    size = Image.open(site_folder / "styles" / "1.jpg").size[::-1]
    page.painted(size)
    time.sleep(2)
    page.painted(size)
    page.saved()
    assert page.saved_name.startswith("1-")


def test_a_file_is_named_after_the_style_that_it_shows(page, tmp_path, expected):
    path = png(tmp_path / "large.png", "coffee", (1700, 1100))
    page.choose(path)
    page.wait_for("status", "part 2")  # what is shown is the quick picture of the first style
    page.find("styles").find_elements("css selector", "input")[2].send_keys(" ")
    picture = page.saved()
    style = page.saved_name.removeprefix("large-").removesuffix(".png")
    assert distance(picture, expected(path.read_bytes(), 512, **{style: 1.0})) <= NEAR


def test_before_and_after_share_the_easel(page):
    page.find("example").click()
    page.painted((300, 451))
    page.set("compare", 30)
    clips = page.run(
        "return ['before', 'after'].map((id) => document.getElementById(id).style.clipPath)"
    )
    assert clips == ["inset(0px 70% 0px 0px)", "inset(0px 0px 0px 30%)"]


@pytest.mark.parametrize("name, data", [("notes.txt", b"no image"), ("empty.png", b"")])
def test_what_is_no_image_is_a_sentence_and_the_page_goes_on(page, tmp_path, name, data):
    page.find("example").click()
    page.painted((300, 451))
    (tmp_path / name).write_bytes(data)
    page.choose(tmp_path / name)
    page.wait_for("problem", f"{name} is no image that this browser can read")
    page.choose(png(tmp_path / "photo.png"))
    page.painted((149, 203))
    assert page.text("problem") == ""


def test_a_camera_is_painted_live_and_a_photo_taken(page):
    page.find("camera").click()
    page.wait_for("speed", "frames a second")
    assert page.text("camera") == "Stop the camera"
    first = page.saved()
    assert max(first.shape) == 256
    # The fake camera's picture moves.
    page.wait(lambda: not np.array_equal(page.saved(), first), "another frame")
    page.find("snap").click()
    page.wait_for("status", "painted in")
    assert page.text("speed") == ""
    assert max(page.saved().shape) > 256
    assert page.run("return document.getElementById('video').srcObject") is None


def test_a_camera_that_is_refused_is_a_sentence(address, tmp_path):
    refused = {"profile.default_content_setting_values.media_stream_camera": 2}
    with open_page(tmp_path, FAKE_CAMERA[0], **refused) as page:
        page.open(address)
        page.find("camera").click()
        page.wait_for("problem", "The camera was refused")
        page.find("example").click()
        page.painted((300, 451))


def test_no_camera_at_all_is_a_sentence(address, tmp_path):
    with open_page(tmp_path, FAKE_CAMERA[1]) as page:
        page.open(address)
        page.find("camera").click()
        page.wait_for("problem", "camera")
        assert page.text("problem").startswith("No camera was found")


def live_tracks(page) -> int:
    return page.run("return window.streams.flatMap((s) => s.getTracks()).filter(live).length")


WATCHED = """
window.streams = [];
window.live = (track) => track.readyState === 'live';
const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = async (wish) => {
  await new Promise((resolve) => setTimeout(resolve, 500));
  const stream = await ask(wish);
  window.streams.push(stream);
  return stream;
};
"""


def test_the_newest_wish_wins_over_a_camera_that_is_slow(page):
    page.run(WATCHED)
    page.run("for (let i = 0; i < 2; i += 1) document.getElementById('camera').click()")
    page.wait(lambda: page.run("return window.streams.length") == 1, "the camera's answer")
    time.sleep(0.5)
    assert live_tracks(page) == 0  # clicked twice: it is off
    assert page.text("camera") == "Use the camera" and page.text("problem") == ""
    page.find("camera").click()
    page.find("example").click()
    page.painted((300, 451))
    page.wait(lambda: page.run("return window.streams.length") == 2, "the camera's answer")
    time.sleep(0.5)
    assert live_tracks(page) == 0 and page.text("speed") == ""
    page.painted((300, 451))
    page.find("camera").click()
    page.wait_for("speed", "frames a second")
    assert live_tracks(page) == 1
    page.run("for (const id of ['snap', 'camera']) document.getElementById(id).click()")
    page.find("example").click()
    page.painted((300, 451))
    page.wait(lambda: live_tracks(page) == 0, "no camera")


def foreign_model():
    """An ONNX file that is not a network of ours."""
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", *([v] for v in values))
    return helper.make_model(graph, ir_version=9).SerializeToString()


@pytest.mark.parametrize("text", ["", "{}", '{"styles": [{"na'])
def test_a_broken_description_is_a_sentence(copy_of_site, tmp_path, text):
    (copy_of_site / "network.json").write_text(text)
    with (
        serving(serve(copy_of_site, "127.0.0.1", 0)) as address,
        open_page(tmp_path / "saved") as page,
    ):
        page.browser.get(address)
        page.wait_for("problem", "network.json is missing or damaged")


def test_a_page_that_is_opened_as_a_file_says_what_it_needs(site_folder, tmp_path):
    with open_page(tmp_path) as page:
        page.browser.get((site_folder / "index.html").as_uri())
        assert "it needs a web server" in page.text("status")


@pytest.mark.parametrize("kind", ["missing", "cut off", "foreign"])
def test_a_broken_network_is_a_sentence_and_the_photo_is_shown(copy_of_site, tmp_path, kind):
    model = copy_of_site / "network.onnx"
    data = model.read_bytes()
    if kind == "missing":
        model.unlink()
    else:
        model.write_bytes(foreign_model() if kind == "foreign" else data[: len(data) // 2])
    with (
        serving(serve(copy_of_site, "127.0.0.1", 0)) as address,
        open_page(tmp_path / "saved") as page,
    ):
        page.browser.get(address)
        words = "could not be loaded" if kind == "missing" else "is damaged, or no network"
        page.wait_for("problem", words)
        page.choose(png(tmp_path / "photo.png"))
        page.wait_for("status", "The photo is shown as it is.")
        assert page.run("return document.getElementById('before').width") == 203
        model.write_bytes(data)  # the page need not be loaded again
        page.choose(png(tmp_path / "photo.png"))
        page.painted((149, 203))
        assert page.text("problem") == ""


def test_no_request_leaves_the_origin(address, site_folder, tmp_path):
    log = tmp_path / "net.json"
    with open_page(tmp_path / "saved", f"--log-net-log={log}", *FAKE_CAMERA) as page:
        page.open(address)
        page.find("example").click()
        page.painted((300, 451))
        page.find("camera").click()
        page.wait_for("speed", "frames a second")
        page.saved()
        logged = [entry["message"] for entry in page.browser.get_log("browser")]
    assert not logged  # a breach of the content security policy would be among them
    asked = json.loads(log.read_text())
    types = asked["constants"]["logEventTypes"]
    starts = [e for e in asked["events"] if e["type"] == types["URL_REQUEST_START_JOB"]]
    ours = address.rstrip("/")
    asked_by_page = [
        e["params"]["url"]
        for e in starts
        if "url" in e.get("params", {})
        and (e["params"].get("initiator") == ours or e["params"]["url"].startswith(ours))
    ]
    assert len(asked_by_page) > 20
    assert all(url.startswith(f"{ours}/") or url.startswith("blob:") for url in asked_by_page)
    # Nothing is asked for that is not there, but for what every browser asks for.
    names = {url.removeprefix(address).partition("?")[0] for url in asked_by_page} - {"favicon.ico"}
    assert all((site_folder / name).exists() for name in names if not name.startswith("blob:"))


class Plain(http.server.SimpleHTTPRequestHandler):
    """A web server that knows nothing of this page."""

    def log_message(self, *_):
        pass


def plain_server(folder, port=0):
    def handler(*given):
        return Plain(*given, directory=str(folder))

    return http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)


def test_works_from_a_sub_folder_of_a_plain_server_and_offline_once_loaded(
    site_folder, tmp_path, expected
):
    shutil.copytree(site_folder, tmp_path / "www" / "art" / "paint")
    with open_page(tmp_path / "saved") as page:
        with serving(plain_server(tmp_path / "www")) as address:
            page.open(f"{address}art/paint/")
            # The service worker gives it the headers that threads need, at once.
            page.wait(lambda: page.run("return crossOriginIsolated"), "isolation")
            page.wait_for("status", "Ready.")
        page.browser.get(f"{address}art/paint/?style={STYLES[1]}")  # nobody answers there any more
        page.wait_for("status", "Ready.")
        path = png(tmp_path / "photo.png")
        page.choose(path)
        page.painted((149, 203))
        near(page.saved(), expected(path.read_bytes(), **{STYLES[1]: 1.0}))


def heading(page) -> str:
    return page.browser.find_element("css selector", "h1").text


def test_a_new_version_replaces_the_old_when_its_pages_are_closed(copy_of_site, tmp_path):
    with serving(plain_server(copy_of_site)) as address, open_page(tmp_path / "saved") as page:
        page.open(address)
        page.run("return navigator.serviceWorker.ready.then(() => true)")
        files = copy_of_site / "files.js"
        files.write_text(files.read_text().replace('"version": "', '"version": "new'))
        index = copy_of_site / "index.html"
        index.write_text(index.read_text().replace("<h1>Paint a photo", "<h1>Paint it anew"))

        def renewed():
            page.browser.get(address)
            time.sleep(3)  # browsers look for a new version a second after a page is loaded
            assert heading(page) in ("Paint a photo", "Paint it anew")
            found = heading(page) == "Paint it anew"
            page.browser.get("about:blank")
            time.sleep(1)
            return found

        end = time.monotonic() + 60
        while not renewed():
            assert time.monotonic() < end


@contextlib.contextmanager
def nst_web(folder, port=0):
    """A process, whose connections end with it."""
    command = [sys.executable, "-m", "pipeline", "web", str(folder), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        yield process.stdout.readline().decode().strip()
        process.terminate()
        assert process.wait(timeout=30) == 0


def test_what_is_served_later_at_the_same_address_is_seen(site_folder, copy_of_site, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "index.html").write_text("<h1>Another program</h1>")
    index = copy_of_site / "index.html"
    index.write_text(index.read_text().replace("<h1>Paint a photo", "<h1>Paint it anew"))
    os.utime(index, (1e9, 1e9))  # older files
    with open_page(tmp_path / "saved") as page:
        with nst_web(site_folder) as address:
            page.open(address)
            assert heading(page) == "Paint a photo"
        port = int(address.rstrip("/").rpartition(":")[2])
        with nst_web(copy_of_site, port):
            page.open(address)
            assert heading(page) == "Paint it anew"
        with serving(plain_server(other, port)):
            page.browser.get(address)
            assert heading(page) == "Another program"


def test_every_control_has_a_name_and_a_phone_shows_the_page_whole(page):
    nameless = page.run(
        """const named = (e) =>
          e.ariaLabel || e.textContent.trim() || e.labels?.[0]?.textContent.trim();
        const controls = document.querySelectorAll('input, select, button, canvas, progress');
        return [...controls].filter((e) => !named(e)).map((e) => e.outerHTML)"""
    )
    assert nameless == []
    page.find("example").click()
    page.painted((300, 451))
    page.browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True},
    )
    try:
        assert page.run("return document.documentElement.scrollWidth") <= 360
        small = page.run(
            """return [...document.querySelectorAll('button, select')].filter((e) =>
              e.offsetParent && e.getBoundingClientRect().height < 44).map((e) => e.id)"""
        )
        assert small == []
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_works_with_the_keyboard_alone(page):
    """From the top: open a photo, the example, the camera ..."""
    from selenium.webdriver.common.keys import Keys

    order = []
    for _ in range(12):
        page.browser.switch_to.active_element.send_keys(Keys.TAB)
        order.append(page.browser.switch_to.active_element.get_attribute("id") or "style")
        if order[-1] == "size":
            break
    assert order == ["open", "example", "camera", "style", "with", "mix", "strength", "size"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_legible_in_light_and_dark(page, scheme):
    page.browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    colors = page.run(
        """const body = getComputedStyle(document.body);
        const faint = getComputedStyle(document.querySelector('header p'));
        return [body.backgroundColor, body.color, faint.color]"""
    )
    ground, *inks = (luminance(color) for color in colors)
    assert (ground > 0.5) == (scheme == "light")
    for ink in inks:  # WCAG 2.2, 1.4.3
        light, dark = max(ground, ink), min(ground, ink)
        assert (light + 0.05) / (dark + 0.05) >= 4.5


def luminance(color: str) -> float:
    levels = [int(part) / 255 for part in color.removeprefix("rgb(").rstrip(")").split(",")]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in levels]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def test_its_screenshot(page, request):
    """With `--screenshot FILE`, the picture in the README is made anew."""
    page.find("example").click()
    page.painted((300, 451))
    page.set("compare", 35)
    shot = Image.open(io.BytesIO(page.browser.get_screenshot_as_png())).convert("RGB")
    assert np.asarray(shot).std() > 20  # something is seen
    path = request.config.getoption("--screenshot")
    if path:
        shot.save(path, quality=85)


def test_the_server_ends_in_order(site_folder):
    server = serve(site_folder, "127.0.0.1", 0)
    with serving(server):
        assert threading.active_count() > 1
    with pytest.raises(OSError):
        server.socket.getsockname()
