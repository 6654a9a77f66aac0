"""The page for people in a real Chromium, in front of a real server with a fake engine."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess

import httpx2
import pytest

from engine.errors import DoesNotFitError
from server.worker.fake_executor import FakeExecutor
from tests.browser import looks
from tests.processes import server_process

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect

SECOND_MS = 1_000

STEP_S = 0.02


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


# --- drawing ----------------------------------------------------------------------------------------------------------


def test_a_prompt_becomes_a_picture_with_its_seed_and_settings(serve, open_page):
    running = serve(FakeExecutor(step_s=STEP_S))
    page = open_page(running)
    expect(page.locator("#queue-line")).to_contain_text("Ready")
    words = seen_words(page, "#progress-words")
    wish(page, num_inference_steps=20, guidance_scale=5.5, seed=7, sampler="Euler", noise_schedule="karras")
    page.keyboard.press("Control+Enter")
    see_done(page)
    assert any(re.match(r"Step \d+ of 20", text) for text in words())
    told = facts(page)
    assert (told["Seed"], told["Size"], told["Steps"], told["Guidance"]) == ("7", "512 × 512", "20", "5.5")
    assert told["Sampler"] == "Euler, karras"
    [job] = jobs(running)
    assert job["params"]["noise_schedule"] == "karras"
    assert page.url.endswith(f"#{job['id']}")
    expect(page.locator("#tiles .tile img")).to_be_visible()
    expect(page.locator("#queue-line")).to_contain_text("Ready")


def test_progress_shows_previews_and_is_announced_now_and_then(serve, open_page):
    page = open_page(serve(FakeExecutor(step_s=0.03)))
    said = seen_words(page, "#announcer")
    draw(page, num_inference_steps=40)
    expect(page.locator("#preview")).to_be_visible()
    assert page.locator("#preview").get_attribute("src").startswith("data:image/")
    assert page.locator("#bar").get_attribute("max") == "1"
    see_done(page)
    expect(page.locator("#preview")).to_be_hidden()
    announced = [text for text in said() if text]
    assert announced[-1] == "The picture is done: a cat"
    assert "50 percent drawn" in announced
    assert len(announced) <= 8, "not every step"


def test_everything_can_be_done_with_the_keyboard(serve, open_page):
    page = open_page(serve())
    page.get_by_label("Prompt", exact=True).focus()
    page.keyboard.type("a dog")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Draw", exact=True)).to_be_focused()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    see_done(page, "a dog")
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
    assert {"negative_prompt", "width", "height", "num_inference_steps", "guidance_scale", "seed", "dice"} <= reached
    assert {"sampler", "noise_schedule", "num_images", "output_format", "again", "another", "download"} <= reached
    assert {"copy-curl", "For programs"} <= reached


def test_several_pictures_are_shown_one_at_a_time(serve, open_page):
    page = open_page(serve())
    draw(page, seed=5, num_images=3)
    see_done(page)
    assert facts(page)["Seed"] == "5"
    page.get_by_role("button", name="Picture 3 of 3, seed 7").click()
    assert facts(page)["Seed"] == "7"
    assert page.locator("#download").get_attribute("download") == "semantic-bit-7.png"
    expect(page.locator(".tile .count")).to_have_text("3")


def test_the_largest_seed_comes_back_digit_by_digit(serve, open_page):
    largest = str(2**63 - 1)
    running = serve()
    page = open_page(running)
    draw(page, seed=largest)
    see_done(page)
    assert facts(page)["Seed"] == largest
    assert f'"seed": {largest}' in page.locator("#job-json").text_content()
    assert f'"seed":{largest}' in page.locator("#curl").text_content()
    assert jobs(running)[0]["params"]["seed"] == 2**63 - 1


def test_a_prompt_is_never_markup(serve, open_page):
    prompt = '<img src=x onerror=alert(1)><b>bold</b> "seed": 12 it\'s'
    page = open_page(serve())
    draw(page, prompt)
    see_done(page, prompt)
    assert page.locator("#caption-prompt *").count() == 0


# --- what can be done with a picture ----------------------------------------------------------------------------------


def test_the_copied_command_draws_the_same_bytes(serve, open_page, tmp_path):
    prompt = 'it\'s "a" $HOME `cat` \\ !x ünï 猫'
    running = serve()
    page = open_page(running, permissions=["clipboard-read", "clipboard-write"])
    draw(page, prompt, seed=11, num_images=2, negative_prompt="rain's", sampler="DDIM", eta=0.5, output_format="webp")
    see_done(page, prompt)
    page.get_by_role("button", name="Picture 2 of 2, seed 12").click()
    page.get_by_role("button", name="Copy as curl").click()
    expect(page.locator("#copy-curl")).to_have_text("Copied")
    command = page.evaluate("navigator.clipboard.readText()")
    assert command == page.locator("#curl").text_content()
    [job] = jobs(running)
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True, capture_output=True, timeout=20)
    drawn = httpx2.get(f"{running.url}{job['images'][1]['url']}").content
    assert (tmp_path / "semantic-bit-12.webp").read_bytes() == drawn


def test_a_picture_can_be_downloaded(serve, open_page):
    running = serve()
    page = open_page(running)
    draw(page, seed=3, output_format="jpeg")
    see_done(page)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == "semantic-bit-3.jpg"
    [job] = jobs(running)
    assert download.value.path().read_bytes() == httpx2.get(f"{running.url}{job['images'][0]['url']}").content


def test_again_with_this_seed_and_another_seed(serve, open_page):
    running = serve()
    page = open_page(running)
    draw(page, num_inference_steps=9, guidance_scale=3)
    see_done(page)
    seed = facts(page)["Seed"]
    page.get_by_role("button", name="Back to the defaults").click()
    page.get_by_role("button", name="Again with this seed").click()
    expect(page.get_by_label("Seed", exact=True)).to_have_value(seed)
    expect(page.get_by_label("Steps", exact=True)).to_have_value("9")
    expect(page.get_by_label("Prompt", exact=True)).to_be_focused()
    page.get_by_role("button", name="Another seed").click()
    expect(page.locator("#tiles .tile")).to_have_count(2)
    see_done(page)
    assert facts(page)["Seed"] != seed
    assert {job["params"]["num_inference_steps"] for job in jobs(running)} == {9}


def test_recent_pictures_come_page_by_page_and_can_be_chosen(serve, open_page):
    running = serve()
    wishes = [{"prompt": f"cat {number}"} for number in range(20)]
    ids = [httpx2.post(f"{running.url}/v1/jobs", json=wish).json()["id"] for wish in wishes]
    page = open_page(running)
    tiles = page.locator("#tiles .tile")
    expect(tiles).to_have_count(18)
    see_done(page, "cat 19")
    page.get_by_role("button", name="More").click()
    expect(tiles).to_have_count(20)
    expect(page.get_by_role("button", name="More")).to_be_hidden()
    tiles.nth(18).click()
    see_done(page, "cat 1")
    assert page.url.endswith(f"#{ids[1]}")
    tiles.nth(2).click()
    see_done(page, "cat 17")
    page.go_back()
    see_done(page, "cat 1")
    page.reload()
    see_done(page, "cat 1")


# --- waiting ----------------------------------------------------------------------------------------------------------


def test_a_job_in_the_queue_tells_its_place_and_can_be_cancelled(serve, open_page):
    running = serve(FakeExecutor(step_s=0.5, max_images_in_flight=1))
    for number in range(3):
        httpx2.post(f"{running.url}/v1/jobs", json={"prompt": f"other {number}"})
    page = open_page(running)
    expect(page.locator("#queue-line")).to_contain_text("1 drawing, 2 waiting")
    draw(page)
    expect(page.locator("#progress-words")).to_contain_text("2 ahead of it")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#ended")).to_contain_text("Cancelled.")
    expect(page.locator("#progress")).to_be_hidden()
    assert jobs(running)[0]["status"] == "cancelled"


def test_a_job_that_fails_says_why(serve, open_page):
    executor = FakeExecutor()
    page = open_page(serve(executor))
    executor.fail_next(DoesNotFitError("one picture of 512x512 needs 9 GiB, and the device has 8"))
    draw(page)
    expect(page.locator("#ended")).to_contain_text("Failed.")
    expect(page.locator("#ended")).to_contain_text("needs 9 GiB")
    expect(page.get_by_role("button", name="Another seed")).to_be_visible()
    expect(page.get_by_role("link", name="Download")).to_be_hidden()


def test_while_the_model_loads_the_page_says_so_and_jobs_wait(serve, open_page):
    page = open_page(serve(FakeExecutor(load_s=2)))
    expect(page.locator("#queue-line")).to_have_text("Loading the model")
    expect(page.locator("#draw-eta")).to_have_text("starts when the model is loaded")
    expect(page.locator("#notice")).to_be_hidden()
    draw(page)
    see_done(page)
    expect(page.locator("#queue-line")).to_contain_text("Ready")


def test_busy_does_not_look_like_broken(serve, open_page):
    running = serve(FakeExecutor(step_s=0.1))
    page = open_page(running, viewport={"width": 390, "height": 800})
    for _ in range(12):
        httpx2.post(f"{running.url}/v1/jobs", json={"prompt": "a dog", "num_inference_steps": 40})
    draw(page, num_inference_steps=40)
    expect(page.locator("#queue-line")).to_have_text("2 drawing, 11 waiting")
    assert page.locator(".top").bounding_box()["height"] < 80, "one row on a telephone, too"
    expect(page.locator('.dot[data-state="busy"]')).to_be_visible()
    dot, ink = page.evaluate(
        """[getComputedStyle(document.querySelector(".dot")).backgroundColor, getComputedStyle(document.body).color]"""
    )
    assert dot == ink
    running.stop()
    expect(page.locator("#queue-line")).to_have_text("No connection")
    assert page.evaluate('getComputedStyle(document.querySelector(".dot")).backgroundColor') != ink


def test_a_prompt_that_was_cut_is_reported(serve, open_page):
    page = open_page(serve())
    said = seen_words(page, "#announcer")
    long = "red cat sky " * 80
    draw(page, long)
    see_done(page, long)
    notice = "The prompt is too long for this model: its end was cut off and has no effect."
    expect(page.locator("#caption-truncated")).to_have_text(notice)
    expect(page.locator("#caption-truncated")).to_be_visible()
    assert notice in said()[-1]
    draw(page, "a cat", negative_prompt=long)
    see_done(page, "a cat")
    expect(page.locator("#caption-truncated")).to_contain_text("The prompt or the negative prompt is too long")
    draw(page, "a dog", negative_prompt="")
    see_done(page, "a dog")
    expect(page.locator("#caption-truncated")).to_be_hidden()


# --- what goes wrong --------------------------------------------------------------------------------------------------


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


# --- with an API key --------------------------------------------------------------------------------------------------

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


# --- how it looks -----------------------------------------------------------------------------------------------------


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
