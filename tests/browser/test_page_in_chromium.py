"""Drawing on the page, in a real Chromium, in front of a real server with a fake engine."""

from __future__ import annotations

import re
import subprocess

import httpx2

from engine.errors import DoesNotFitError
from server.worker.fake_executor import FakeExecutor
from tests.browser.drawing_page import STEP_S, draw, expect, facts, jobs, see_done, seen_words, wish

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
