"""Pictures as input on the page for people, in a real Chromium: how they come in, and what is drawn anew of them."""

from __future__ import annotations

import io
from itertools import pairwise

import httpx2
import numpy as np
import pytest
from PIL import Image

from engine.models.random_model import make_random_model
from server.worker.fake_executor import FakeExecutor
from tests.browser import looks
from tests.processes import server_process

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect

SIDE = 128


@pytest.fixture(scope="module")
def drawing(tmp_path_factory):
    """A server whose engine really draws over what it is given."""
    size = {"DEFAULT_WIDTH": str(SIDE), "DEFAULT_HEIGHT": str(SIDE), "DEFAULT_STEPS": "8"}
    with server_process(tmp_path_factory.mktemp("pictures"), MODEL_ID="fake-16", **size) as running:
        running.wait_until_ready()
        yield running


@pytest.fixture(scope="module")
def accepting(module_serve):
    """A server that takes pictures and draws patterns, where the request is the point."""
    return module_serve(FakeExecutor(max_images_in_flight=8))


@pytest.fixture
def open_page(new_page):
    def opened(running, **options):
        page = new_page(may_lose=True, **options)
        page.goto(running.url)
        page.wait_for_selector("#sampler option", state="attached")
        return page

    return opened


def photo(width=SIDE, height=SIDE):
    """A picture without two equal corners, as a PNG file."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    pixels = np.stack([across, down, 255 - across], axis=2).astype(np.uint8)
    return encoded(pixels)


def encoded(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def decoded(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def choose(page, data):
    with page.expect_file_chooser() as chooser:
        page.locator("#choose-picture").click()
    chooser.value.set_files({"name": "photo.png", "mimeType": "image/png", "buffer": data})
    expect(page.locator("#remove-picture")).to_be_visible()


def hand_over(page, kind, data, media_type="image/png", name="photo.png"):
    """Drop a file on the page, or paste it."""
    page.evaluate(
        """([kind, bytes, type, name]) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], name, { type }));
          const options = { bubbles: true, cancelable: true };
          const target = document.querySelector("h1");
          if (kind === "paste") {
            target.dispatchEvent(new ClipboardEvent("paste", { ...options, clipboardData: transfer }));
          } else for (const name of ["dragover", "drop"]) {
            target.dispatchEvent(new DragEvent(name, { ...options, dataTransfer: transfer }));
          }
        }""",
        [kind, list(data), media_type, name],
    )


def draw(page, prompt):
    """Draw, and wait for it; the job."""
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_role("button", name="Draw", exact=True).click()
    see_done(page, prompt)
    return newest(page)


def see_done(page, prompt):
    expect(page.locator("#picture")).to_have_attribute("alt", prompt)
    expect(page.locator("#picture")).to_be_visible()


def newest(page):
    return httpx2.get(f"{page.url.partition('#')[0]}v1/jobs", params={"limit": 1}).json()["jobs"][0]


def picture_of(page, job):
    return decoded(httpx2.get(f"{page.url.partition('#')[0]}{job['images'][0]['url'].lstrip('/')}").content)


def drag(page, *points):
    """Press the button at the first point, move on to the others, let go."""
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=8)
    page.mouse.up()


def within(locator, *shares):
    """Points inside an element, as shares of its width and height."""
    box = locator.bounding_box()
    return [(box["x"] + across * box["width"], box["y"] + down * box["height"]) for across, down in shares]


def test_what_is_painted_is_drawn_anew_and_nothing_else_changes(drawing, open_page):
    page = open_page(drawing, viewport={"width": 1280, "height": 900})
    choose(page, photo())
    page.get_by_label("A part of it").check()
    page.get_by_label("Soft edge in pixels").fill("0")
    page.get_by_role("button", name="Draw", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("Nothing is marked.")
    canvas = page.locator("#painter canvas")
    canvas.scroll_into_view_if_needed()
    drag(page, *within(canvas, (0.3, 0.3), (0.7, 0.3), (0.7, 0.5)))
    job = draw(page, "a cat")
    assert (job["params"]["mask"]["area"], job["params"]["width"]) == ("whole", SIDE)
    changed = np.abs(picture_of(page, job) - decoded(photo())).max(axis=2) > 0
    assert changed[38, 64], "the middle of the stroke"
    rows, columns = np.nonzero(changed)
    # A brush of 0.15 of the side, a latent of 16 pixels: no more than half a brush and a latent around the stroke.
    assert 0.3 * SIDE - 27 <= columns.min() <= 0.3 * SIDE < 0.7 * SIDE <= columns.max() <= 0.7 * SIDE + 27
    assert 0.3 * SIDE - 27 <= rows.min() <= 0.3 * SIDE < 0.5 * SIDE <= rows.max() <= 0.5 * SIDE + 27


def test_a_mask_can_be_painted_inverted_and_taken_back_by_keyboard_alone(drawing, open_page):
    page = open_page(drawing)
    draw(page, "a dog")
    use = page.get_by_role("button", name="Use as input")
    use.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#choose-picture")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_label("All of it")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_label("A part of it")).to_be_checked()
    page.keyboard.press("Tab")
    expect(page.get_by_role("application", name="Mask")).to_be_focused()
    share = page.locator("#painter output")
    expect(share).to_have_text("0 % marked")
    shares = []

    def press(*keys):
        for key in keys:
            page.keyboard.press(key)
        shares.append(int(share.text_content().split()[0]))

    press("Space")
    press("ArrowDown", "ArrowDown", "ArrowDown", "Space")
    press("Shift+ArrowRight", "Shift+ArrowRight", "Shift+ArrowRight")
    assert all(before < after for before, after in pairwise([0, *shares])), shares
    most = shares[-1]
    press("Control+z", "Control+z", "Control+z", "Control+z")
    assert shares[-1] == shares[0]
    page.get_by_role("button", name="Invert").press("Enter")
    expect(share).to_have_text(f"{100 - shares[0]} % marked")
    page.get_by_role("button", name="Clear").press("Enter")
    expect(share).to_have_text("0 % marked")
    page.get_by_role("button", name="Undo").press("Enter")
    page.get_by_role("button", name="Undo").press("Enter")
    expect(share).to_have_text(f"{shares[0]} % marked")
    assert most < 50
    page.get_by_label("Prompt", exact=True).fill("a dog with a hat")
    page.keyboard.press("Control+Enter")
    see_done(page, "a dog with a hat")
    assert newest(page)["params"]["mask"]["image"]["width"] == SIDE


def test_a_picture_is_dropped_on_a_telephone_and_drawn_over(accepting, open_page):
    page = open_page(accepting, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    hand_over(page, "drop", photo(96, 64))
    expect(page.locator("#given")).to_be_visible()
    page.get_by_label("Strength", exact=True).fill("0.45")
    for mode in ("All of it", "A part of it", "Beyond its edges"):
        page.get_by_label(mode).check()
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert looks.hard_to_read(page) == {}
        assert looks.sticking_out(page) == []
        assert looks.unnamed(page) == []
    page.get_by_label("A part of it").check()
    canvas = page.locator("#painter canvas")
    canvas.scroll_into_view_if_needed()
    [(x, y)] = within(canvas, (0.5, 0.5))
    page.touchscreen.tap(x, y)
    expect(page.locator("#painter output")).not_to_have_text("0 % marked")
    params = draw(page, "a fox")["params"]
    assert (params["strength"], params["image"]["width"], params["image"]["height"]) == (0.45, 96, 64)
    assert params["mask"]["image"]["width"] == 96
    assert (params["width"], params["height"]) == (624, 416)  # about as many pixels as are usual, in its shape
    assert params["mask"]["area"] == "masked"  # so that the rest of the picture stays as it is


def test_a_picture_grows_by_its_handles_and_by_its_fields(drawing, open_page):
    page = open_page(drawing, viewport={"width": 1280, "height": 900})
    hand_over(page, "paste", photo())
    page.get_by_label("Beyond its edges").check()
    page.locator("#expander").scroll_into_view_if_needed()
    [start] = within(page.locator('[data-side="right"]'), (0.5, 0.5))
    drag(page, start, (start[0] + 60, start[1]))
    right = int(page.get_by_label("Right", exact=True).input_value())
    assert right >= 16
    assert right % 16 == 0
    page.get_by_label("Top", exact=True).fill("32")
    size = f"{SIDE + right} × {SIDE + 32}"
    expect(page.locator("#grown-size")).to_have_text(f"Comes out at {size} pixels.")
    job = draw(page, "a wide cat")
    assert job["params"]["expand"] | {"blur": 0} == {"left": 0, "top": 32, "right": right, "bottom": 0, "blur": 0}
    assert page.locator("#facts").text_content().count(size) == 1
    tiles = page.locator("#tiles .tile")
    number = tiles.count()
    page.get_by_role("button", name="Another seed").click()  # what came with the job is still here
    expect(tiles).to_have_count(number + 1)
    see_done(page, "a wide cat")
    assert newest(page)["params"]["expand"] == job["params"]["expand"]


def test_the_settings_of_a_picture_are_read_from_its_file(drawing, open_page):
    page = open_page(drawing)
    page.get_by_label("Steps", exact=True).fill("5")
    page.get_by_label("Seed", exact=True).fill(str(2**62 + 1))
    page.get_by_label("Sampler").select_option("Euler")
    job = draw(page, "a fox in the snow")
    file = httpx2.get(f"{drawing.url}{job['images'][0]['url']}").content
    page.get_by_role("button", name="Back to the defaults").click()
    hand_over(page, "drop", file)
    expect(page.locator("#found-settings")).to_contain_text("a fox in the snow")
    page.get_by_role("button", name="Use its settings").click()
    expect(page.get_by_label("Seed", exact=True)).to_have_value(str(2**62 + 1))
    expect(page.get_by_label("Steps", exact=True)).to_have_value("5")
    expect(page.locator("#sampler")).to_have_value("Euler")


def test_settings_of_other_programs_are_named_and_where_none_can_be_read_nothing_is_said(accepting, open_page):
    page = open_page(accepting)
    settings = {"parameters": "a fox", "request": {"prompt": "a fox"}, "unknown": {"ENSD": "31337"}}
    answers = iter([{"status": 200, "json": settings}, {"status": 404, "json": {}}])
    page.route("**/v1/image-info", lambda route: route.fulfill(**next(answers)))
    with page.expect_response("**/v1/image-info"):
        hand_over(page, "drop", photo())
    expect(page.locator("#found-settings")).to_contain_text("Not known here: ENSD.")
    with page.expect_response("**/v1/image-info"):
        hand_over(page, "drop", photo())
    expect(page.locator("#found-settings")).to_be_hidden()
    expect(page.locator("#notice")).to_be_hidden()


def test_variations_and_larger_pictures_and_what_they_come_from_again(accepting, open_page):
    page = open_page(accepting)
    page.get_by_label("Enlarge and draw on (hires fix)").check()
    page.get_by_label("Scale").fill("1.5")
    page.get_by_label("Width", exact=True).fill("128")
    page.get_by_label("Height", exact=True).fill("64")
    expect(page.locator("#hires-size")).to_have_text("Comes out at 192 × 96 pixels.")
    first = draw(page, "a boat")["params"]
    assert (first["hires"]["width"], first["hires"]["steps"], first["hires"]["upscaler"]) == (192, 14, "latent")
    assert page.locator("#facts").text_content().count("192 × 96") == 1
    tiles = page.locator("#tiles .tile").count()
    page.get_by_role("button", name="Variation", exact=True).click()
    expect(page.locator("#tiles .tile")).to_have_count(tiles + 1)
    expect(page.locator("#facts")).to_contain_text("0.2 towards")
    varied = newest(page)["params"]
    assert (varied["seed"], varied["variation_strength"]) == (first["seed"], 0.2)
    assert varied["hires"] == first["hires"]
    assert f'"variation_seed":{varied["variation_seed"]}' in page.locator("#curl").text_content()
    choose(page, photo())
    expect(page.locator("#hires")).to_be_hidden()  # not together with a picture


def test_what_is_no_picture_is_refused_and_what_the_server_does_not_read_is_drawn_anew(accepting, open_page):
    page = open_page(accepting)
    hand_over(page, "drop", b"not a picture", "text/plain", "notes.txt")
    expect(page.get_by_role("alert")).to_contain_text("This is not a picture.")
    hand_over(page, "drop", b"not a picture", "image/png")
    expect(page.get_by_role("alert")).to_contain_text("This file cannot be read as a picture.")
    expect(page.locator("#chosen")).to_be_hidden()
    file = io.BytesIO()
    Image.new("RGB", (5000, 20), "red").save(file, "GIF")
    hand_over(page, "drop", file.getvalue(), "image/gif", "red.gif")
    expect(page.locator("#given")).to_be_visible()
    assert draw(page, "a line")["params"]["image"]["width"] == 4096


def test_a_picture_is_enlarged_and_the_result_is_a_picture_like_others(drawing, open_page):
    page = open_page(drawing)
    draw(page, "a fox on a hill")
    page.get_by_role("button", name="Enlarge", exact=True).click()
    see_done(page, "Enlarged picture")
    job = newest(page)
    assert job["params"]["upscaler"] == "lanczos"
    assert picture_of(page, job).shape[:2] == (2 * SIDE, 2 * SIDE)
    facts = page.locator("#facts").text_content()
    assert f"{2 * SIDE} × {2 * SIDE}" in facts
    assert "Guidance" not in facts, "nothing was drawn"
    expect(page.locator("#caption-prompt")).to_have_text("Enlarged picture")
    expect(page.get_by_role("button", name="Another seed")).to_be_hidden()
    page.get_by_role("button", name="Use as input").click()
    expect(page.locator("#given")).to_be_visible()


def test_a_model_is_chosen_where_there_are_several(module_serve, open_page, tmp_path):
    make_random_model(tmp_path / "quick", seed=1)
    running = module_serve(FakeExecutor(), models_dir=tmp_path)
    page = open_page(running, viewport={"width": 1280, "height": 900})
    model = page.get_by_label("Model", exact=True)
    draw(page, "a hat")
    assert model.locator("option").all_text_contents()[1:] == ["quick"]
    model.select_option("quick")
    expect(page.get_by_label("Width", exact=True)).to_have_value("64")
    job = draw(page, "a red hat")
    assert (job["model"], job["params"]["width"]) == ("quick", 64)
    expect(page.locator("#facts")).to_contain_text("Modelquick")
    assert '"model":"quick"' in page.locator("#curl").text_content()
    model.select_option("")
    expect(page.get_by_label("Width", exact=True)).to_have_value("512")
    page.get_by_role("button", name="Another seed").click()
    expect(page.locator("#tiles .tile")).to_have_count(3)
    see_done(page, "a red hat")
    assert newest(page)["model"] == "quick", "what is drawn again, is drawn by the same model"
    page.reload()
    page.wait_for_selector("#sampler option", state="attached")
    expect(model).to_have_value("quick")


def test_there_is_no_choice_of_one_model(accepting, open_page):
    expect(open_page(accepting).locator("#model-field")).to_be_hidden()
