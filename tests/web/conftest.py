"""The page of the embedded network, served on this machine, and a browser that has opened it."""

import contextlib
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from selenium.common.exceptions import StaleElementReferenceException

from nst_ops.images.codec import decode
from nst_ops.network.facts import EMBEDDED
from nst_ops.network.model import load_network
from nst_ops.network.painter import Painter
from nst_ops.network.thumbnails import read_thumbnails

from ..chromium import chromium

WAIT = 90  # s, for a machine that is busy
FAKE_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


@pytest.fixture(scope="session")
def network():
    """The embedded network and what is known of it."""
    return load_network(EMBEDDED)


@pytest.fixture(scope="session")
def painter(network):
    return Painter(network[0])


@pytest.fixture(scope="session")
def site_folder(network, painter, tmp_path_factory):
    """The files of its page."""
    from nst_ops.export.onnx import to_onnx
    from pipeline.web.site import make_site

    model, facts = network
    folder = tmp_path_factory.mktemp("site")
    made = make_site(to_onnx(model, facts, tiles=True), facts, painter, read_thumbnails(EMBEDDED))
    for name, data in made.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@contextlib.contextmanager
def serving(server):
    """Has a server answer; yields its address."""
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="session")
def address(site_folder):
    from pipeline.web.server import serve

    with serving(serve(site_folder, "127.0.0.1", 0)) as found:
        yield found


class Page:
    """The page in a browser, as a person uses it.

    Args:
      browser: that shows it.
      downloads: where it saves files.
    """

    def __init__(self, browser, downloads: Path):
        self.browser, self._downloads = browser, downloads

    def open(self, address: str, *, until: str = "Ready."):
        self.browser.get(address)
        self.wait_for("status", until)
        return self

    def find(self, name: str):
        return self.browser.find_element("id", name)

    def text(self, name: str) -> str:
        return self.find(name).text

    def run(self, script: str, *arguments):
        return self.browser.execute_script(script, *arguments)

    def wait(self, condition, what: str):
        """Waits until a condition holds; returns what it gave."""
        end = time.monotonic() + WAIT
        while time.monotonic() < end:
            with contextlib.suppress(StaleElementReferenceException):  # the page is loaded again
                found = condition()
                if found:
                    return found
            time.sleep(0.05)
        raise AssertionError(
            f"{what}: waited in vain; status {self.text('status')!r}, problem "
            f"{self.text('problem')!r}, log {self.browser.get_log('browser')}"
        )

    def wait_for(self, name: str, part: str) -> str:
        """Waits until an element's text has a part; returns the text."""
        return self.wait(lambda: part in self.text(name) and self.text(name), f"{name}: {part!r}")

    def choose(self, path: Path) -> None:
        self.find("file").send_keys(str(path))

    def set(self, name: str, value) -> None:
        """Moves a slider, or chooses from a list, as a hand does."""
        self.run(
            "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
            "e.dispatchEvent(new Event('input', {bubbles: true}))",
            name,
            str(value),
        )

    def painted(self, size: tuple[int, int]) -> str:
        """Waits for a picture of this (height, width); returns what is said of it."""
        return self.wait_for("status", f"{size[1]} × {size[0]} px, painted in")

    def saved(self) -> np.ndarray:
        """Saves the picture; returns its file's pixels, 0 to 255."""
        for old in self._downloads.iterdir():
            old.unlink()
        self.find("save").click()
        path = self.wait(lambda: next(self._downloads.glob("*.png"), None), "a saved file")
        self.saved_name = path.name
        return np.asarray(Image.open(path))


@contextlib.contextmanager
def open_page(folder: Path, *arguments: str, **preferences):
    """Opens a browser for a page; what it saves lies in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    downloads = {"download.default_directory": str(folder)}
    window = "--window-size=1280,1000"
    with chromium(window, *arguments, preferences=downloads | preferences) as browser:
        yield Page(browser, folder)


@pytest.fixture(scope="module")
def browser_page(tmp_path_factory):
    """One browser for many tests, with a camera that shows a test picture."""
    with open_page(tmp_path_factory.mktemp("downloads"), *FAKE_CAMERA) as page:
        yield page


@pytest.fixture
def page(browser_page, address):
    """The page, just opened."""
    return browser_page.open(address)


@pytest.fixture(scope="session")
def expected(painter, network):
    """What Python paints of a file, 0 to 255, by {style: weight}."""

    def paint(data: bytes, long_side: int | None = None, strength: float = 1.0, **styles: float):
        photo = decode(data, long_side=long_side).pixels
        weights = network[1].weights_of(list(styles.items()))
        picture = painter.paint(photo[None], [weights])[0]
        return 255.0 * (photo + strength * (picture - photo))

    return paint


@pytest.fixture
def copy_of_site(site_folder, tmp_path):
    """The page's files, to be spoilt."""
    return Path(shutil.copytree(site_folder, tmp_path / "spoilt"))
