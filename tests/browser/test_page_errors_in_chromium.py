"""What the page says of wrong values, refusals, lost answers and broken streams, in a real Chromium."""

from __future__ import annotations

import json
import re
import signal
import socket

import pytest

from server.worker.fake_executor import FakeExecutor
from tests.browser import looks
from tests.browser.drawing_page import SECOND_MS, draw, expect, facts, jobs, see_done, seen_words, wish
from tests.processes import server_process


def test_a_wrong_value_is_told_at_its_field(serve, open_page):
    page = open_page(serve())
    draw(page, width=63, num_inference_steps=1000)
    expect(page.locator("#width-error")).to_have_text(re.compile(r"^Width must be .*\.$"))
    expect(page.locator("#num_inference_steps-error")).to_contain_text("Steps must be")
    assert page.get_by_label("Width").get_attribute("aria-invalid") == "true"
    expect(page.locator("[aria-invalid]").first).to_be_focused()
    expect(page.locator("#notice")).to_be_hidden()
    page.get_by_label("Width").fill("64")
    expect(page.locator("#width-error")).to_be_hidden()
    page.get_by_label("Steps", exact=True).fill("4")
    page.keyboard.press("Enter")
    see_done(page)
    assert facts(page)["Size"] == "64 × 512"


def test_an_error_inside_closed_options_opens_them(serve, open_page):
    page = open_page(serve())
    wish(page, seed="many")
    page.locator("#options").evaluate("details => { details.open = false }")
    page.get_by_role("button", name="Draw", exact=True).click()
    expect(page.get_by_label("Seed", exact=True)).to_be_focused()
    expect(page.locator("#seed-error")).to_be_visible()


def test_no_prompt_is_told_at_the_prompt(serve, open_page):
    page = open_page(serve())
    page.get_by_role("button", name="Draw", exact=True).click()
    expect(page.locator("#prompt-error")).to_contain_text("Prompt ")


REASON = "unet/model.safetensors of /srv/models/some-model is damaged: it ends after 100000 bytes of 3438167540"


REASON_SHOWN = REASON.replace("/srv/models/", "")
"""Where the model lies is not for everybody."""


@pytest.mark.parametrize("width", [390, 1280])
def test_a_failed_model_is_one_word_in_the_header_and_its_reason_stands_in_the_banner(serve, open_page, width):
    page = open_page(serve(FakeExecutor(load_failure=REASON)), viewport={"width": width, "height": 800})
    expect(page.locator("#queue-line")).to_have_text("Failed")
    expect(page.get_by_role("alert")).to_contain_text(f"The server cannot draw pictures. {REASON_SHOWN}")
    assert page.content().count(REASON_SHOWN) == 1
    assert page.locator(".top").bounding_box()["height"] < 80, "one row"
    close = page.get_by_role("button", name="Close")
    assert close.bounding_box()["height"] < 40, "one line"
    assert looks.sticking_out(page) == []
    assert looks.hard_to_read(page) == {}
    close.click()
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    with page.expect_response("**/health"):
        pass
    expect(page.locator("#notice")).to_be_hidden()


def test_trouble_of_the_server_is_shown_while_it_lasts(serve, open_page):
    executor = FakeExecutor(load_s=2.0)
    running = serve(executor)
    page = open_page(running)
    expect(page.locator("#queue-line")).to_have_text("Ready")
    running.call(executor.die)
    lookup = "document.dispatchEvent(new Event('visibilitychange'))"
    page.evaluate(lookup)
    expect(page.get_by_role("alert")).to_contain_text("The server cannot draw pictures. the engine process ended")
    running.call(executor.restart)
    page.evaluate(lookup)
    expect(page.locator("#queue-line")).to_have_text("Loading the model")
    expect(page.locator("#notice")).to_be_hidden()


@pytest.mark.parametrize("status", [403, 503])
def test_a_refusal_is_told_in_the_servers_words(serve, open_page, status):
    page = open_page(serve())
    problem = {"title": "Not now", "detail": "ask the operator", "status": status, "code": "x", "retry_after": 12}

    def refuse(route):
        if route.request.method != "POST":
            return route.continue_()
        return route.fulfill(status=status, body=json.dumps(problem), content_type="application/problem+json")

    page.route("**/v1/jobs", refuse)
    draw(page)
    expect(page.get_by_role("alert")).to_contain_text("Not now. ask the operator Try again in 12 s.")


def lose_answers(page, number):
    """Let the next requests for pictures reach the server, and lose its answers."""
    lost = []

    def lose(route):
        if route.request.method != "POST" or len(lost) == number:
            return route.continue_()
        route.fetch()
        lost.append(route.request.header_value("idempotency-key"))
        return route.abort("connectionreset")

    page.route("**/v1/jobs", lose)
    return lost


def test_a_lost_answer_is_asked_for_again_and_drawn_once(serve, open_page):
    running = serve()
    page = open_page(running)
    lost = lose_answers(page, 2)
    draw(page)
    expect(page.get_by_role("alert")).to_contain_text("No connection")
    see_done(page)
    expect(page.locator("#notice")).to_be_hidden()
    assert len(lost) == 2
    assert len(set(lost)) == 1
    assert len(jobs(running)) == 1


def test_whoever_stops_trying_and_asks_again_gets_the_same_drawing(serve, open_page):
    running = serve()
    page = open_page(running)
    lose_answers(page, 1)
    page.clock.install()  # so that the page does not try again by itself
    draw(page)
    page.get_by_role("button", name="Stop retrying").click()
    expect(page.get_by_role("alert")).to_contain_text("Stopped.")
    page.get_by_role("button", name="Draw", exact=True).click()
    see_done(page)
    assert len(jobs(running)) == 1
    page.get_by_role("button", name="Draw", exact=True).click()
    expect(page.locator("#tiles .tile")).to_have_count(2)


def test_two_clicks_are_one_request(serve, open_page):
    running = serve()
    page = open_page(running)
    wish(page)
    page.get_by_role("button", name="Draw", exact=True).dblclick()
    see_done(page)
    assert len(jobs(running)) == 1


def test_without_event_streams_the_page_asks(serve, open_page):
    page = open_page(serve(FakeExecutor(step_s=0.1)))
    page.route("**/events", lambda route: route.abort("connectionreset"))
    words = seen_words(page, "#progress-words")
    draw(page, num_inference_steps=30)
    see_done(page)
    assert any(re.match(r"Step \d+ of 30", text) for text in words())


def test_a_stream_that_breaks_is_taken_up_again(serve, open_page):
    page = open_page(serve(FakeExecutor(step_s=0.05)))
    broken = []

    def break_once(route):
        if broken:
            return route.continue_()
        broken.append(route)
        data = 'data: {"status": "running",\r\ndata: "step": 1, "steps": 30}'
        body = f"id: 1.1\r\nevent: snapshot\r\n{data}\r\n\r\n: keep-alive\r\n"
        return route.fulfill(status=200, body=body, content_type="text/event-stream")

    page.route("**/events", break_once)
    words = seen_words(page, "#progress-words")
    draw(page, num_inference_steps=30)
    expect(page.locator("#connection")).to_be_visible()
    see_done(page)
    assert any(text.startswith("Step 1 of 30") for text in words())


def test_a_job_outlives_its_server_and_the_page_follows_it(open_page, tmp_path):
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    settings = {"MODEL_ID": "fake-engine:100", "PORT": port, "DRAIN_TIMEOUT": "0"}
    with server_process(tmp_path, **settings) as running:
        running.wait_until_ready()
        page = open_page(running)
        draw(page, num_inference_steps=40)
        expect(page.locator("#progress-words")).to_contain_text(re.compile(r"Step \d"))
        running.process.send_signal(signal.SIGTERM)
        running.process.wait(20)
        expect(page.locator("#connection")).to_be_visible()
    with server_process(tmp_path, **settings | {"MODEL_ID": "fake-engine:10"}):
        expect(page.locator("#stage")).to_have_attribute("data-state", "done", timeout=40 * SECOND_MS)
        expect(page.locator("#connection")).to_be_hidden()
