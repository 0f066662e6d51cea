"""The review at scale, in a real Chromium: first paint, search, the server's memory, seeking in a long FLAC.

python benchmarks/review.py [--tracks 20000]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile
from playwright.sync_api import Page, sync_playwright

PRESETS = ("full", "technical", "genre_mood", "instrumentation", "structure")
WORDS = [
    "warm",
    "slow",
    "piano",
    "house",
    "minor",
    "drums",
    "bass",
    "pads",
    "verse",
    "chorus",
    "bright",
    "vocal",
    "guitar",
    "synth",
    "calm",
    "driving",
    "airy",
    "deep",
]
RATE = 44_100
FIRST_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


def make_dataset(root: Path, tracks: int) -> None:
    """Write tracks that share one sound, each with five captions of a hundred words."""
    dice = np.random.default_rng(1)
    sound = root / "long.flac"
    with soundfile.SoundFile(sound, "w", RATE, 2, "PCM_16") as file:
        for _ in range(20):
            file.write(dice.normal(0, 0.1, (RATE * 60, 2)).astype("float32"))
    short = root / "short.wav"
    soundfile.write(short, np.sin(np.arange(RATE) / 20), RATE)
    texts = [" ".join(dice.choice(WORDS, 100)) for _ in range(500)]
    features = {f"feature_{index}": float(value) for index, value in enumerate(dice.random(40))}
    for number in range(tracks):
        audio = root / f"album {number // 20:04d}" / f"track {number:05d}.wav"
        audio.parent.mkdir(exist_ok=True)
        os.link(short, audio)
        info: dict[str, Any] = dict(features)
        for place, preset in enumerate(PRESETS):
            info[f"music_flamingo_{preset}"] = f"No. {number}: {texts[(7 * number + place) % len(texts)]}."
        info["music_flamingo_provenance"] = {preset: {"model": "m.gguf", "seed": 42} for preset in PRESETS}
        audio.with_suffix(".INFO").write_text(json.dumps(info, indent=2))
    shutil.copy(audio.with_suffix(".INFO"), sound.with_suffix(".INFO"))
    short.unlink()


def resident(process: subprocess.Popen[str]) -> float:
    """The server's memory in MB."""
    return psutil.Process(process.pid).memory_info().rss / 1e6


def wait(page: Page, condition: str, seconds: float = 120) -> float:
    """Wait for a condition in the page; return how long it took, in seconds."""
    started = time.perf_counter()
    while not page.evaluate(condition):
        if time.perf_counter() - started > seconds:
            raise TimeoutError(condition)
        time.sleep(0.005)
    return time.perf_counter() - started


def search(page: Page, text: str) -> float:
    """Type a search; return the seconds until the list shows the result, of which 60 ms are a pause."""
    before = page.inner_text("#count")
    page.fill("#search", text)
    return wait(page, f"document.querySelector('#count').textContent !== {json.dumps(before)}")


def measure(process: subprocess.Popen[str], url: str, tracks: int) -> dict[str, float]:
    """Open the page while the dataset is still read, and again when it is."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    found: dict[str, float] = {}
    with sync_playwright() as playwright:
        options = ["--disable-gpu", "--autoplay-policy=no-user-gesture-required", "--no-sandbox"]
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        page = browser.new_page()
        started = time.perf_counter()
        page.goto(url)
        page.wait_for_url(re.compile(r":\d+/$"))
        page.wait_for_selector("#list [role=option]")
        wait(page, "document.querySelectorAll('#list [role=option]').length > 5")
        found["first rows while reading, s"] = time.perf_counter() - started
        wait(page, f"document.querySelector('#count').textContent === '{tracks + 1} of {tracks + 1} tracks'", 300)
        found["dataset read, s"] = time.perf_counter() - started
        page.reload()
        wait(page, "document.querySelector('.caption .text') !== null && document.querySelector('#list .row') !== null")
        found["first paint, s"] = float(page.evaluate(FIRST_PAINT)) / 1000
        found["list and track shown, s"] = float(page.evaluate("performance.now()")) / 1000
        for name, text in (("number", "04711"), ("words", "piano calm 77"), ("nothing", "xylophone"), ("all", "")):
            found[f"search, {name}, s"] = search(page, text)
        found["server after searches, MB"] = resident(process)
        found |= _seek(page)
        found["server at the end, MB"] = resident(process)
        browser.close()
    return found


def _seek(page: Page) -> dict[str, float]:
    """Seek in 20 minutes of FLAC while it plays; return the seconds until it sounds there."""
    page.fill("#search", "long.flac")
    wait(page, "document.querySelector('#detail h2')?.textContent.includes('long.flac')")
    page.evaluate("document.querySelector('audio').muted = true; document.querySelector('audio').play()")
    wait(page, "document.querySelector('audio').currentTime > 0.2")
    worst = 0.0
    sound = "document.querySelector('audio')"
    for target in (600, 1100, 60, 900):
        page.evaluate(f"document.querySelector('audio').currentTime = {target}")
        taken = wait(page, f"{sound}.currentTime > {target} + 0.02 && !{sound}.seeking")
        worst = max(worst, taken)
    return {"seek in 20 minutes of FLAC, worst of 4, s": worst}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tracks", type=int, default=20_000)
    tracks = parser.parse_args().tracks
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "music"
        root.mkdir()
        make_dataset(root, tracks)
        command = [sys.executable, "-m", "musicflamingo_cli", "review", str(root)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert process.stdout
        try:
            url = process.stdout.readline().strip()
            assert re.match(r"http://127\.0\.0\.1:\d+/enter", url), url
            figures = measure(process, url, tracks)
        finally:
            process.terminate()
            process.wait()
    print(f"{tracks} tracks, load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for name, value in figures.items():
        print(f"{name:45} {value:8.2f}")


if __name__ == "__main__":
    main()
