"""What tests do on the drawing page: write a prompt, draw, and read what it shows."""

from __future__ import annotations

import httpx2
import pytest

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect

SECOND_MS = 1_000

STEP_S = 0.02


def wish(page, prompt="a cat", **fields):
    page.get_by_label("Prompt", exact=True).fill(prompt)
    if not page.locator("#options").evaluate("details => details.open"):
        page.get_by_text("Options", exact=True).click()
    for name, value in fields.items():
        field = page.locator(f"[name={name}]")
        if field.evaluate("field => field.tagName") == "SELECT":
            field.select_option(value)
        else:
            field.fill(str(value))


def draw(page, prompt="a cat", **fields):
    wish(page, prompt, **fields)
    page.get_by_role("button", name="Draw", exact=True).click()


def see_done(page, prompt="a cat"):
    expect(page.locator("#stage")).to_have_attribute("data-state", "done", timeout=15 * SECOND_MS)
    expect(page.locator("#picture")).to_be_visible()
    expect(page.locator("#caption-prompt")).to_have_text(prompt)


def facts(page):
    pairs = page.locator("#facts div").evaluate_all(
        "all => all.map(each => [...each.children].map(c => c.textContent))"
    )
    return dict(pairs)


def jobs(running):
    return httpx2.get(f"{running.url}/v1/jobs", params={"limit": 100}).json()["jobs"]


def seen_words(page, selector):
    """Note every text that an element ever shows, from now on."""
    page.evaluate(
        """selector => {
          const element = document.querySelector(selector);
          window.seen = [element.textContent];
          new MutationObserver(() => window.seen.push(element.textContent))
            .observe(element, { childList: true, characterData: true, subtree: true });
        }""",
        selector,
    )
    return lambda: page.evaluate("window.seen")
