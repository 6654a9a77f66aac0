"""Draws with the page at `/` in Chromium and takes docs/images/page-*.png: the whole page, a mask, growing.

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

PART_OF = PROMPTS[1]
PART_PROMPT = "a brown dog on a mat"


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
        take_part(browser, url)
        take_beyond(browser, url)


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
    save(page, f"page-{scheme}-{name}.png")
    page.context.close()


def take_part(browser: Browser, url: str) -> None:
    """Paint over a part of a picture, draw, and photograph both."""
    page = opened(browser, url, "light", "desktop")
    choose(page, PART_OF)
    page.get_by_role("button", name="Use as input").click()
    page.get_by_label("A part of it").check()
    page.get_by_label("Brush size").fill("36")
    paint(page, (0.4, 0.3), (0.64, 0.3), (0.64, 0.5), (0.38, 0.5), (0.38, 0.74), (0.66, 0.74), (0.66, 0.6), (0.4, 0.4))
    page.get_by_label("Prompt", exact=True).fill(PART_PROMPT)
    page.get_by_label("Strength", exact=True).fill("1")
    page.get_by_label("Seed", exact=True).fill("5")
    page.get_by_role("button", name="Draw", exact=True).click()
    page.locator(f'#picture[alt="{PART_PROMPT}"]').wait_for(timeout=120_000)
    page.locator("#options summary").click()
    page.mouse.move(0, 0)
    page.wait_for_timeout(800)
    save(page, "page-part-light-desktop.png")
    page.context.close()


def take_beyond(browser: Browser, url: str) -> None:
    """Let a picture grow, on a phone."""
    page = opened(browser, url, "dark", "phone")
    choose(page, PROMPTS[-1])
    page.get_by_role("button", name="Use as input").click()
    page.get_by_label("Beyond its edges").check()
    page.get_by_label("Right", exact=True).fill("64")
    page.get_by_label("Left", exact=True).fill("32")
    page.get_by_label("Left", exact=True).blur()
    page.get_by_label("Prompt", exact=True).fill(PROMPTS[-1])
    page.get_by_role("button", name="Draw", exact=True).click()
    page.locator("#facts").get_by_text("the edges").wait_for(timeout=120_000)
    page.locator("#picture:not([hidden])").wait_for(timeout=120_000)
    page.wait_for_timeout(800)
    save(page, "page-beyond-dark-phone.png")
    page.context.close()


def choose(page: Page, prompt: str) -> None:
    """Put a recent picture on the stage."""
    page.locator(f'#tiles button[title="{prompt}"]').click()
    page.locator(f'#picture[alt="{prompt}"]').wait_for()


def paint(page: Page, *points: tuple[float, float]) -> None:
    """Move the brush over the mask: points in shares of its width and height."""
    canvas = page.get_by_role("application", name="Mask")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None  # noqa: S101 -- it is to be seen
    at = [(box["x"] + across * box["width"], box["y"] + down * box["height"]) for across, down in points]
    page.mouse.move(*at[0])
    page.mouse.down()
    for point in at[1:]:
        page.mouse.move(*point, steps=6)
    page.mouse.up()


def save(page: Page, name: str) -> None:
    """Keep all of the page as one picture."""
    path = IMAGES / name
    page.screenshot(path=path, full_page=True)
    print(path.relative_to(REPOSITORY), f"{path.stat().st_size / 1e3:.0f} kB")


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
