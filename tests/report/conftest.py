"""A real, headless Chromium for the pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A real Chromium; where MUSICFLAMINGO_REQUIRE_CHROMIUM is set, it must be installed."""
    if find_chromium() is None:
        reason = "NOT RUN in a browser: no Chromium on the PATH (apt-get install chromium)"
        if os.environ.get("MUSICFLAMINGO_REQUIRE_CHROMIUM"):
            pytest.fail(reason)
        pytest.skip(reason)
    with headless_chromium() as browser:
        yield browser


def find_chromium() -> str | None:
    """Return the Chromium on the PATH."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next(filter(None, map(shutil.which, names)), None)


@contextmanager
def headless_chromium() -> Iterator[Browser]:
    """Run the Chromium on the PATH."""
    with sync_playwright() as playwright:
        options = ["--disable-gpu", "--disable-background-networking", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=options)
        yield browser
        browser.close()


def open_page(browser: Browser, page: Path, ready: str = "tr.track", **options: Any) -> tuple[Page, list[str]]:
    """Open the page, wait for the element ``ready``, and return a list of what the page logs and requests, too."""
    opened = browser.new_page(**options)
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on(
        "request",
        lambda request: None if request.url.startswith(("file:", "data:")) else complaints.append(request.url),
    )
    opened.goto(page.as_uri())
    opened.wait_for_selector(ready)
    return opened, complaints


def contrast(one: str, other: str) -> float:
    """WCAG's contrast ratio of two `rgb(…)` colours."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in colour.removeprefix("rgb(").rstrip(")").split(",")]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def assert_fits(page: Page, width: int, contrasts: Mapping[str, float]) -> None:
    """Check that the page needs no scrolling sideways, and the contrast of the elements against its background."""
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    for element, least in contrasts.items():
        front = page.evaluate(f"getComputedStyle(document.querySelector('{element}')).color")
        assert contrast(front, back) >= least, element
