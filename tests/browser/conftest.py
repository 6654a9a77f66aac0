"""A Chromium, and windows whose pages may not complain."""

from __future__ import annotations

import pytest

SECOND_MS = 1_000
PATIENCE_MS = 60 * SECOND_MS
"""As long as anything may take on a machine that does much else."""


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = pytest.importorskip("chromium")
    playwright.expect.set_options(timeout=PATIENCE_MS)
    try:
        with chromium.launched() as browser:
            yield browser
    except playwright.Error as error:
        if "Executable doesn't exist" not in str(error):
            raise
        pytest.skip("no Chromium is installed: apt-get install chromium")


@pytest.fixture
def new_page(browser):
    """Open a fresh window: `new_page(viewport={...})`. Its console must stay silent.

    `may_lose=True` is for tests that do something to its network.
    """
    contexts = []
    complaints = []

    def opened(*, may_lose=False, **options):
        context = browser.new_context(**options)
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: note(message, may_lose=may_lose))
        return page

    def note(message, *, may_lose):
        if message.type == "error" and not (may_lose and "Failed to load resource" in message.text):
            complaints.append(message.text)

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def open_page(new_page):
    """Open a server's page in a fresh window: `open_page(running, viewport={...})`.

    It is ready when it has what `ready` selects.
    """

    def opened(running, path="", ready="#sampler option", **options):
        page = new_page(may_lose=True, **options)
        page.goto(f"{running.url}/{path}")
        page.wait_for_selector(ready, state="attached")
        return page

    return opened
