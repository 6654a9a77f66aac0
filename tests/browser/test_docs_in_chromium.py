"""`/docs` in a real Chromium: in the page's colours, light and dark, with the schemas folded."""

from __future__ import annotations

import re

import pytest

from tests.browser import looks

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect


@pytest.fixture
def docs(new_page, serve):
    page = new_page(viewport={"width": 1280, "height": 860})
    page.goto(f"{serve().url}/docs")
    page.wait_for_selector(".opblock")
    return page


def brightness(page, selector):
    colour = page.locator(selector).first.evaluate("element => getComputedStyle(element).backgroundColor")
    return sum(int(part) for part in re.findall(r"\d+", colour)[:3]) / (3 * 255)


def test_the_documentation_can_be_read_in_light_and_dark_and_follows_a_change(docs):
    docs.get_by_role("button", name="POST /generate").first.click()
    expect(docs.get_by_role("button", name="Try it out")).to_be_visible()
    for scheme, is_bright in (("light", True), ("dark", False), ("light", True)):
        docs.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        docs.mouse.move(0, 0)
        docs.wait_for_timeout(300)  # Swagger UI fades some of its colours
        for part in ("body", ".opblock", ".swagger-ui"):
            assert (brightness(docs, part) > 0.5) == is_bright, (scheme, part)
        assert looks.hard_to_read(docs) == {}, scheme
    docs.set_viewport_size({"width": 390, "height": 800})
    assert docs.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_schemas_are_folded(docs):
    schemas = docs.locator("section.models")
    expect(schemas.get_by_role("button").first).to_have_attribute("aria-expanded", "false")
    assert schemas.locator("article").count() == 0
    schemas.get_by_role("button").first.click()
    expect(schemas.locator("article").first).to_be_visible()
