"""Draws with the page at `/` in Chromium and takes docs/images/page-{light,dark}-{desktop,phone}.png.

Needs `pip install playwright` and a Chromium: `python scripts/page_screenshots.py [--model MODEL_ID]`.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from chromium import launched
from playwright.sync_api import Browser, Page, expect

REPOSITORY = Path(__file__).resolve().parents[1]
IMAGES = REPOSITORY / "docs" / "images"

VIEWPORTS = {"desktop": (1280, 860), "phone": (390, 844)}

PROMPTS = (
    "a yellow car in a city at night",
    "an orange cat on a mat",
    "a hot-air balloon over the mountains at sunrise",
    "a penguin in the snow",
    "a red barn in a field at noon",
    "a sailboat on the sea at sunset",
    "an owl in a forest at night",
    "a lighthouse by the sea at night",
)
"""The last one is on the stage."""


def main() -> None:
    """Draw every prompt once, then look at the page in each of its four shapes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="models/dreamlet", help="what draws (MODEL_ID)")
    parser.add_argument("--seed", default="3", help="of every picture")
    arguments = parser.parse_args()
    with served(arguments.model) as url, launched() as browser:
        draw_all(browser, url, arguments.seed)
        for scheme in ("light", "dark"):
            for name in VIEWPORTS:
                take(browser, url, scheme, name)


def draw_all(browser: Browser, url: str, seed: str) -> None:
    """Ask for the pictures as people do: in the page."""
    page = opened(browser, url, "light", "desktop")
    for prompt in PROMPTS:
        page.get_by_label("Prompt", exact=True).fill(prompt)
        page.get_by_label("Seed", exact=True).fill(seed)
        page.get_by_role("button", name="Draw", exact=True).click()
        page.locator(f'#picture[alt="{prompt}"]').wait_for(timeout=120_000)
    page.context.close()


def take(browser: Browser, url: str, scheme: Literal["light", "dark"], name: str) -> None:
    """Photograph all of the page."""
    page = opened(browser, url, scheme, name)
    page.get_by_label("Prompt", exact=True).fill(PROMPTS[-1])
    page.get_by_label("Prompt", exact=True).blur()
    page.wait_for_selector("#picture:not([hidden])")
    expect(page.locator("#tiles img:not([hidden])")).to_have_count(len(PROMPTS))
    page.wait_for_selector('.dot[data-state="idle"]', timeout=30_000)
    page.wait_for_timeout(800)
    path = IMAGES / f"page-{scheme}-{name}.png"
    page.screenshot(path=path, full_page=True)
    print(path.relative_to(REPOSITORY), f"{path.stat().st_size / 1e3:.0f} kB")
    page.context.close()


def opened(browser: Browser, url: str, scheme: Literal["light", "dark"], name: str) -> Page:
    """The page in a fresh window."""
    width, height = VIEWPORTS[name]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=scheme,
        reduced_motion="reduce",
        has_touch=name == "phone",
        is_mobile=name == "phone",
    )
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector("#sampler option", state="attached")
    return page


@contextmanager
def served(model_id: str) -> Iterator[str]:
    """Run a server with this model on a free port, and give its address."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "MODEL_ID": model_id, "PORT": "0", "DATA_DIR": folder}
        process = subprocess.Popen(
            [sys.executable, "-m", "server", "serve"],
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert process.stdout is not None  # noqa: S101 -- a pipe was asked for
            found = re.search(r"http://\S+", process.stdout.readline())
            if found is None:
                raise SystemExit("the server did not start: run it by hand to see why")
            yield found[0]
        finally:
            process.terminate()
            process.wait(90)


if __name__ == "__main__":
    main()
