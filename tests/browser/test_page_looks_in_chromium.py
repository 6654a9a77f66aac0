"""How the page looks: widths, contrast, names of controls, movement, in a real Chromium."""

from __future__ import annotations

import re

import pytest

from server.worker.fake_executor import FakeExecutor
from tests.browser import looks
from tests.browser.drawing_page import STEP_S, draw, expect, see_done


def test_nothing_sticks_out_at_any_width(serve, open_page):
    prompt = "a cat with averyveryveryveryveryveryveryveryveryverylongword"
    page = open_page(serve())
    draw(page, prompt, seed=2**62, num_images=8)
    see_done(page, prompt)
    page.get_by_text("For programs").click()
    for width in (320, 390, 768, 1280, 1920):
        page.set_viewport_size({"width": width, "height": 800})
        assert looks.sticking_out(page) == []
        box = page.locator("#picture").bounding_box()
        assert box["width"] >= min(width - 40, 288)
        assert box["height"] <= 800


@pytest.mark.parametrize("scrollbar", [0, 15])
def test_what_can_be_done_with_a_picture_stands_in_one_row_on_a_desktop(serve, open_page, scrollbar):
    page = open_page(serve(), viewport={"width": 1280 - scrollbar, "height": 720})
    draw(page)
    see_done(page)
    tops = page.locator("#actions > *").evaluate_all("all => all.map(each => each.getBoundingClientRect().top)")
    assert len(tops) == 4
    assert len(set(tops)) == 1


@pytest.mark.parametrize("side", [64, 72, 128, 192, 512, 768, 1024])
def test_presets_are_different_sizes_and_one_is_chosen(serve, open_page, side):
    page = open_page(serve(default_width=side, default_height=side))
    sizes = page.locator("#presets button").evaluate_all("all => all.map(each => each.title)")
    assert len(sizes) == len(set(sizes)) == 4
    assert page.locator("#presets [aria-pressed=true]").all_text_contents() == ["Square"]
    for size in sizes:
        page.locator(f'#presets [title="{size}"]').click()
        assert page.locator("#presets [aria-pressed=true]").evaluate_all("all => all.map(e => e.title)") == [size]
        width, height = map(int, size.split(" × "))
        assert page.get_by_label("Width").evaluate("field => field.checkValidity()")
        assert page.get_by_label("Height").evaluate("field => field.checkValidity()")
        assert width / height == pytest.approx({0: 1, 1: 3 / 4, 2: 4 / 3, 3: 16 / 9}[sizes.index(size)], rel=0.1)


def test_every_text_can_be_read_in_light_and_dark(serve, open_page):
    page = open_page(serve())
    draw(page)
    see_done(page)
    draw(page, width=63)
    expect(page.locator("#width-error")).to_be_visible()
    page.mouse.move(0, 0)
    brightness = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert looks.hard_to_read(page) == {}
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness[scheme] = sum(int(part) for part in re.findall(r"\d+", background)[:3]) / (3 * 255)
    assert brightness["light"] > 0.8
    assert brightness["dark"] < 0.2


def test_every_control_has_a_name_and_shows_that_it_has_the_focus(serve, open_page):
    page = open_page(serve())
    draw(page)
    see_done(page)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert looks.unnamed(page) == []
        assert looks.hard_to_see_in_focus(page) == []


def test_nothing_moves_for_those_who_do_not_want_it(serve, open_page):
    page = open_page(serve(), reduced_motion="reduce")
    draw(page)
    see_done(page)
    assert looks.moving(page) == 0


def test_the_browser_finds_nothing_that_the_policy_forbids(serve, open_page, browser):
    running = serve(FakeExecutor(step_s=STEP_S))
    page = open_page(running)
    page.evaluate(
        """window.refused = [];
        addEventListener("securitypolicyviolation", event => refused.push(event.effectiveDirective));"""
    )
    draw(page, num_images=2)
    expect(page.locator("#preview")).to_be_visible()
    see_done(page)
    expect(page.locator("#tiles .tile img")).to_be_visible()
    assert page.evaluate("window.refused") == []

    other = browser.new_page()
    other.goto(running.url)
    refused = other.evaluate(
        """new Promise(resolve => {
          addEventListener("securitypolicyviolation", event => resolve(event.effectiveDirective));
          document.body.append(Object.assign(document.createElement("script"), { text: "var ran = true" }));
        })"""
    )
    assert (refused, other.evaluate("typeof ran")) == ("script-src-elem", "undefined")
    other.close()
