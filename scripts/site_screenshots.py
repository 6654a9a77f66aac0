"""Dreams at the whole site in Chromium and takes docs/images/site-{page}-{light,dark}-{desktop,phone}.png.

Starts what `./run.sh site` starts, on a folder and ports of its own: `python scripts/site_screenshots.py`.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from chromium import launched
from page_screenshots import paint
from playwright.sync_api import Browser, Page, expect

REPOSITORY = Path(__file__).resolve().parents[1]
IMAGES = REPOSITORY / "docs" / "images"
VIEWPORTS = {"desktop": (1280, 860), "phone": (390, 844)}
PASSWORD = "correct horse battery staple"  # noqa: S105 -- of an account that lives for a minute

DREAMS = (
    ("a yellow car in a city at night", "city, night", "8"),
    ("an orange cat on a mat", "animals", "5"),
    ("a sailboat on the sea at sunset", "sea", "3"),
    ("a red mushroom in a forest", "forest", "5"),
    ("an owl in a forest at night", "animals, night", "3"),
    ("a lighthouse by the sea at night", "sea, night", "3"),
)
"""Prompt, tags, seed. The last one is the one that is looked at."""

SHOTS: tuple[tuple[str, str, Literal["light", "dark"], str], ...] = (
    ("gallery", "/", "light", "desktop"),
    ("gallery", "/", "dark", "phone"),
    ("new", "/dream/", "light", "desktop"),
    ("new", "/dream/", "dark", "desktop"),
    ("new", "/dream/", "light", "phone"),
    ("costs", "/costs/", "light", "desktop"),
    ("staff", "/staff/", "light", "desktop"),
)


@dataclass(frozen=True, slots=True)
class Site:
    """A running one."""

    url: str
    environment: dict[str, str]

    def make_staff(self, name: str) -> None:
        """Let an account see the page for staff."""
        code = (
            "from newdreamflow.accounts.models import User; "
            f"User.objects.filter(username={name!r}).update(is_staff=True)"
        )
        command = [sys.executable, "newdreamflow/manage.py", "shell", "-v0", "-c", code]
        subprocess.run(command, cwd=REPOSITORY, env=self.environment, check=True)  # noqa: S603 -- our own command


def main() -> None:
    """Dream every dream, then look at the pages."""
    with site() as running, launched() as browser:
        url = running.url
        page = opened(browser, "light", "desktop")
        sign_up(page, url)
        running.make_staff("ada")
        for prompt, tags, seed in DREAMS:
            dream(page, url, prompt, tags, seed)
        cookies = page.context.cookies()
        dream_path = page.url.removeprefix(url)
        uuid = dream_path.split("/")[-2]
        new = f"/dream/?from={uuid}&over={uuid}"
        shots = [
            *SHOTS,
            ("dream", dream_path, "light", "desktop"),
            ("dream", dream_path, "dark", "desktop"),
            ("dream", dream_path, "dark", "phone"),
            ("change", f"{new}/0", "light", "desktop"),
        ]
        for name, path, scheme, viewport in shots:
            take(browser, cookies, url + path, f"site-{name}-{scheme}-{viewport}.png", scheme, viewport)
        for scheme, viewport in (("light", "desktop"), ("dark", "phone")):
            take_part(browser, cookies, f"{url}{new}/0&part=1", scheme, viewport)
        page.goto(f"{url}/dream/?prompt=a+castle+in+the+mountains")
        page.get_by_role("button", name="Draw it").click()
        # Not `wait_for_function`, which the page's own policy forbids.
        while not page.evaluate("document.querySelector('#bar')?.value >= 12"):
            page.wait_for_timeout(20)
        save(page, "site-drawing-light-desktop.png")


def sign_up(page: Page, url: str) -> None:
    """Make an account."""
    page.goto(f"{url}/accounts/sign-up/")
    page.get_by_label("Name", exact=True).fill("ada")
    page.get_by_label("E-mail address").fill("ada@example.org")
    page.get_by_label("Password").first.fill(PASSWORD)
    page.get_by_role("button", name="Sign up").click()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()


def dream(page: Page, url: str, prompt: str, tags: str, seed: str) -> None:
    """Ask for a picture and wait for it."""
    page.goto(f"{url}/dream/")
    page.locator("textarea[name=prompt]").fill(prompt)
    page.get_by_label("Tags").fill(tags)
    page.get_by_text("Finer settings").click()
    page.get_by_label("Seed").fill(seed)
    page.locator("input[name=is_public]").check()
    page.get_by_role("button", name="Draw it").click()
    page.wait_for_url(re.compile(r"/dream/[0-9a-f-]{36}/"))
    page.locator("img.picture").wait_for(timeout=120_000)


def take(browser: Browser, cookies: Sequence[object], url: str, name: str, scheme: str, viewport: str) -> None:
    """Open a page as the same person would on another screen, and keep what is seen."""
    page = opened(browser, scheme, viewport)
    page.context.add_cookies(cookies)  # type: ignore[arg-type]  # they come from Playwright itself
    page.goto(url)
    page.wait_for_load_state("networkidle")
    save(page, name)
    page.context.close()


def take_part(browser: Browser, cookies: Sequence[object], url: str, scheme: str, viewport: str) -> None:
    """The form with a mask that somebody has begun to paint."""
    page = opened(browser, scheme, viewport)
    page.context.add_cookies(cookies)  # type: ignore[arg-type]  # they come from Playwright itself
    page.goto(url)
    page.wait_for_load_state("networkidle")
    paint(page, (0.62, 0.22), (0.86, 0.22), (0.86, 0.3), (0.62, 0.3))
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=IMAGES / f"site-part-{scheme}-{viewport}.png", full_page=True)
    print(f"wrote docs/images/site-part-{scheme}-{viewport}.png")
    page.context.close()


def save(page: Page, name: str) -> None:
    """Write one picture file."""
    page.screenshot(path=IMAGES / name)
    print(f"wrote docs/images/{name}")


def opened(browser: Browser, scheme: str, viewport: str) -> Page:
    """A page of somebody else's browser."""
    width, height = VIEWPORTS[viewport]
    is_dark: Literal["light", "dark"] = "dark" if scheme == "dark" else "light"
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=is_dark)
    return context.new_page()


@contextlib.contextmanager
def site() -> Iterator[Site]:
    """The whole site, running."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as probes:
        ports = []
        for _ in range(2):
            probe = probes.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            ports.append(str(probe.getsockname()[1]))
        probes.close()
        environment = {**os.environ, "DATA_DIR": folder, "PORT": ports[0], "SITE_PORT": ports[1]}
        command = [sys.executable, str(REPOSITORY / "scripts" / "run_site.py")]
        process = subprocess.Popen(  # noqa: S603 -- our own command
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            if process.stdout is None or not any("Ctrl+C ends all" in line for line in process.stdout):
                raise RuntimeError("the site did not start; ./run.sh site says why")
            yield Site(f"http://127.0.0.1:{ports[1]}", environment)
        finally:
            process.terminate()
            process.wait(90)


if __name__ == "__main__":
    main()
