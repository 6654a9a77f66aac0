"""The page of a server that wants an API key, in a real Chromium."""

from __future__ import annotations

import re

from server.worker.fake_executor import FakeExecutor
from tests.browser.drawing_page import STEP_S, draw, expect, see_done, seen_words


def test_a_key_goes_into_the_header_and_never_into_an_address(serve, open_page):
    page = open_page(serve())
    page.evaluate("sessionStorage.setItem('semantic-bit-api-key/', 'k3y')")
    requests = []
    page.on("request", lambda request: requests.append(request))  # noqa: PLW0108 -- Playwright marks what it is given
    draw(page)
    see_done(page)
    ours = [request for request in requests if "/v1/" in request.url]
    assert {"jobs", "events", "0"} <= {request.url.rpartition("/")[2] for request in ours}
    for request in ours:
        assert request.header_value("authorization") == "Bearer k3y"
        assert "k3y" not in request.url


API_KEY = "correct horse battery staple, and two more"


def test_a_server_that_wants_a_key_is_given_one_by_keyboard_and_the_page_works_as_ever(serve, open_page):
    running = serve(FakeExecutor(step_s=STEP_S), api_key=API_KEY)
    page = open_page(running, ready="#key-dialog[open]")
    dialog = page.get_by_role("dialog", name="API key required")
    expect(dialog).to_contain_text("An API key is required.")
    expect(page.get_by_label("API key", exact=True)).to_be_focused()
    page.keyboard.type("not the key, though it is as long as one")
    page.keyboard.press("Enter")
    expect(dialog).to_contain_text("The API key is invalid, expired or revoked.")
    expect(page.get_by_label("API key", exact=True)).to_have_value("")
    page.keyboard.type(API_KEY)
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()

    seen = seen_words(page, "#progress-words")
    draw(page, num_images=2, num_inference_steps=20)
    see_done(page)  # pictures are fetched with the key: an <img> could not send it
    assert any(re.match(r"Step \d+ of 40", text) for text in seen())  # and so are events
    expect(page.locator("#tiles .tile img")).to_be_visible()
    assert page.evaluate("sessionStorage.getItem('semantic-bit-api-key/')") == API_KEY
    assert page.evaluate("localStorage.length") == 0
    command = page.locator("#curl").text_content()
    assert '"Authorization: Bearer $SEMANTIC_BIT_API_KEY"' in command
    assert "staple" not in page.content()

    page.reload()  # kept for this tab
    see_done(page)
    page.get_by_role("button", name="Forget the API key").click()
    expect(dialog).to_be_visible()
    assert page.evaluate("sessionStorage.getItem('semantic-bit-api-key/')") is None
    expect(page.locator("#picture")).to_be_hidden()


def test_whoever_has_no_key_is_not_asked_again_and_again_but_may_come_back(serve, open_page):
    page = open_page(serve(api_key=API_KEY), ready="#key-dialog[open]")
    page.keyboard.press("Escape")
    expect(page.get_by_role("alert")).to_contain_text("Not authorised.")
    expect(page.locator("#key-dialog")).to_be_hidden()
    page.get_by_role("button", name="Enter an API key").click()
    page.get_by_label("API key", exact=True).fill(f"  {API_KEY} ")
    page.get_by_role("button", name="Use it").click()
    draw(page)
    see_done(page)


def test_a_key_that_is_taken_away_is_asked_for_again_and_the_wish_is_not_lost(serve, open_page):
    page = open_page(serve(api_key=API_KEY), ready="#key-dialog[open]")
    page.get_by_label("API key", exact=True).fill(API_KEY)
    page.get_by_role("button", name="Use it").click()
    page.wait_for_selector("#sampler option", state="attached")
    page.evaluate("sessionStorage.setItem('semantic-bit-api-key/', 'one that was revoked in the meantime')")
    draw(page, "a fox")
    page.get_by_label("API key", exact=True).fill(API_KEY)
    page.get_by_role("button", name="Use it").click()
    see_done(page, "a fox")
