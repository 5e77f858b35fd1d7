"""A real browser for tests, without a window."""

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

import pytest


@contextlib.contextmanager
def chromium(*arguments: str, preferences: dict[str, Any] | None = None) -> Iterator[Any]:
    """Opens headless Chromium, which records what it logs and asks for.

    Args:
      arguments: of its command line.
      preferences: of its profile.
    """
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs the dev extra: selenium")
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (binary and driver):
        pytest.skip("NO BROWSER TESTS: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    # Root, as in most containers, must forgo Chromium's sandbox; it opens our own files only. And
    # containers have little shared memory.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", *arguments):
        options.add_argument(argument)
    options.add_experimental_option("prefs", preferences or {})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        yield opened
    finally:
        opened.quit()
