"""The pages and acts of dreams: asking, looking, changing, showing, deleting; and that nobody else can."""

from __future__ import annotations

import re
import uuid
from decimal import Decimal

import pytest
from django.core.files.storage import default_storage
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from newdreamflow.dreams import ledger, services
from newdreamflow.dreams.forms import first_values
from newdreamflow.dreams.models import Dream
from newdreamflow.dreams.styles import STYLES, picture_of
from tests.site.dreaming import done, failed, many_done, waiting

pytestmark = pytest.mark.django_db

ACTS = ("cancel", "delete", "publish", "again")
LOOKS = ("dream", "events", "progress")


def address(name, dream, *arguments):
    return reverse(f"dreams:{name}", args=[dream.uuid, *arguments])


def form_of(**changes):
    return first_values() | {"prompt": "a cat"} | changes


def visible_text(response):
    """What is read aloud, with one space between words."""
    return " ".join(re.sub(r"<[^>]*>", " ", response.content.decode()).split())


@pytest.fixture
def signed_in(client, user):
    client.force_login(user)
    return client


# --- asking for a dream -----------------------------------------------------------------------------------------------


def test_a_wish_becomes_a_dream_and_leads_to_its_page(signed_in, user):
    response = signed_in.post("/dream/", form_of(tags="sea, night", is_public="on", seed=7))
    [dream] = Dream.objects.all()
    assert (response.status_code, response["Location"]) == (302, address("dream", dream))
    assert (dream.user, dream.prompt, dream.seed, dream.is_public, dream.status) == (user, "a cat", 7, True, "waiting")
    assert [tag.name for tag in dream.tags.all()] == ["night", "sea"]


def test_the_form_is_for_those_who_have_signed_in(client):
    for response in (client.get("/dream/"), client.post("/dream/", form_of())):
        assert response.status_code == 302
        assert response["Location"].endswith("?next=/dream/")
    assert not Dream.objects.exists()


def test_a_double_click_is_one_dream(signed_in):
    form = form_of()
    first, second = signed_in.post("/dream/", form), signed_in.post("/dream/", form)
    assert first["Location"] == second["Location"]
    assert Dream.objects.count() == 1


def test_going_back_and_changing_the_wish_is_another_dream(signed_in):
    form = form_of()
    assert (
        signed_in.post("/dream/", form)["Location"] != signed_in.post("/dream/", form | {"prompt": "a dog"})["Location"]
    )


def test_what_is_wrong_is_said_beside_its_field_and_what_was_written_stays(signed_in):
    response = signed_in.post("/dream/", form_of(prompt="", seed=-1, tags="<b>"))
    assert response.status_code == 422
    html = response.content.decode()
    assert "The dream was not sent." in html
    assert "Say in a few words what to draw." in html
    assert re.search(
        r'<textarea[^>]*aria-invalid="true"[^>]*aria-describedby="id_prompt_error"[^>]*id="id_prompt"', html
    )
    assert 'id="id_prompt_error"' in html
    assert re.search(r"<details\s+open", html)  # the seed is in there
    assert 'value="&lt;b&gt;"' in html
    assert not Dream.objects.exists()


def test_every_field_has_a_label(signed_in):
    html = signed_in.get("/dream/").content.decode()
    form = html[html.index('id="wish"') : html.index("</form>", html.index('id="wish"'))]
    labelled = set(re.findall(r'<label for="([^"]+)"', form))
    fields = re.findall(r'<(?:input|select|textarea)(?![^>]*type="(?:hidden|radio|checkbox)")[^>]*id="([^"]+)"', form)
    assert len(fields) == 9
    assert set(fields) <= labelled
    # The others stand inside of theirs.
    assert len(re.findall(r'<label[^>]*>\s*<input type="(?:radio|checkbox)"', form)) == 7 + 3 + 2
    assert form.count("<legend>") == 2


def test_the_price_that_the_form_shows_is_the_price_that_is_set_aside(signed_in, user):
    form = form_of(num_inference_steps=7, guidance_scale="1.0", shape="landscape", size=320, num_images=3)
    shown = re.search(r'id="price"[^>]*>([\d.]+)<', signed_in.post("/dream/", form | {"prompt": ""}).content.decode())
    assert shown
    assert Decimal(shown[1]) == Decimal("0.50")  # with a prompt missing: as the form began, 28 steps at 256x256
    services.submit(user=user, wish=services.Wish(prompt="x", width=256, height=256))
    assert ledger.balance(user) == 100 - Decimal(shown[1])


def test_out_of_budget_is_said_in_words_and_the_wish_is_kept(signed_in, settings):
    settings.DREAMS_STARTING_BUDGET = Decimal("0.25")
    response = signed_in.post("/dream/", form_of(prompt="a very dear cat"))
    text = visible_text(response)
    assert response.status_code == 422
    assert "This dream would cost 0.50 credits, and you have 0.25 left." in text
    assert "a very dear cat" in text
    assert "The dream was not sent. See what is marked" not in text


def test_too_many_unfinished_dreams_are_refused_in_words(signed_in, settings, user):
    settings.DREAMS_MAX_UNFINISHED = 1
    waiting(user)
    response = signed_in.post("/dream/", form_of())
    assert response.status_code == 422
    assert "1 of your dreams are still waiting" in visible_text(response)


def test_the_form_begins_with_an_idea_or_with_a_dream_to_change(signed_in, user, other_user):
    assert ">\nan owl</textarea>" in signed_in.get("/dream/?prompt=an+owl").content.decode()
    for dream in (done(user, "mine", seed=77), done(other_user, "shown to me", is_public=True, seed=77)):
        html = signed_in.get(f"/dream/?from={dream.uuid}").content.decode()
        assert f">\n{dream.prompt}</textarea>" in html
        assert 'value="77"' in html
    assert signed_in.get(f"/dream/?from={done(other_user).uuid}").status_code == 404
    assert signed_in.get("/dream/?from=nonsense").status_code == 404


# --- looking ----------------------------------------------------------------------------------------------------------


def test_a_finished_dream_shows_picture_settings_and_price(signed_in, user):
    dream = done(user, "a cat\non a mat", seed=41, num_images=2, style="pencil", tags=["cats"], width=192, height=128)
    html = signed_in.get(address("dream", dream)).content.decode()
    for index in (0, 1):
        assert re.search(
            rf'<img class="picture" src="{address("picture", dream, index)}"[^>]*width="192" height="128"', html
        )
        assert f'href="{address("picture", dream, index)}?download=1"' in html
    text = visible_text(signed_in.get(address("dream", dream)))
    for words in ("a cat on a mat", "192 × 128", "Seeds 41 and the next one", "Pencil drawing", "cats", "credits"):
        assert words in text, words
    assert "http-equiv" not in html
    assert "Cancel" not in text


def test_a_dream_on_its_way_says_how_it_is_without_javascript_too(signed_in, user):
    dream = waiting(user, "a slow cat", trouble="The GPU server cannot be reached. We try again in 20 s.")
    response = signed_in.get(address("dream", dream))
    html = response.content.decode()
    assert '<noscript><meta http-equiv="refresh"' in html
    assert "The GPU server cannot be reached. We try again in 20 s." in visible_text(response)
    assert f'data-events="{address("events", dream)}"' in html
    assert f'data-progress="{address("progress", dream)}"' in html
    assert f'action="{address("cancel", dream)}"' in html
    assert re.search(r'<svg class="canvas" viewBox="0 0 64 64"', html)  # its place is kept: nothing jumps


def test_a_dream_that_failed_says_why_and_offers_to_try_again(signed_in, user):
    dream = failed(user, "The model produced no usable picture. Try another seed or other words.")
    response = signed_in.get(address("dream", dream))
    assert "Try another seed or other words." in visible_text(response)
    assert "Download" not in visible_text(response)
    assert f'action="{address("again", dream)}"' in response.content.decode()


def test_a_public_dream_shows_strangers_the_picture_and_not_what_is_its_owners(client, user):
    dream = done(user, is_public=True)
    response = client.get(address("dream", dream))
    assert response.status_code == 200
    assert address("picture", dream, 0) in response.content.decode()
    text = visible_text(response)
    for own in ("credits", "Delete", "Only you", "Show it to", "ada"):
        assert own not in text, own


def test_what_users_write_is_shown_as_text(signed_in, user):
    evil = "<script>alert(1)</script>{{ 7 }}\"'"
    dream = done(user, evil)
    for path in (address("dream", dream), "/mine/", "/costs/", f"/dream/?from={dream.uuid}"):
        html = signed_in.get(path).content.decode()
        assert "<script>alert" not in html, path
        assert "&lt;script&gt;alert(1)&lt;/script&gt;{{ 7 }}" in html, path


def test_pages_carry_no_script_or_style_of_their_own(signed_in, user):
    """The content security policy would refuse them."""
    dream = done(user)
    for path in ("/", "/mine/", "/costs/", "/dream/", address("dream", dream), address("dream", waiting(user))):
        html = signed_in.get(path).content.decode()
        assert not re.search(
            r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|javascript:|https?://(?!127)", html
        ), path


# --- acts -------------------------------------------------------------------------------------------------------------


def test_cancel_asks_for_it_and_comes_back(signed_in, user):
    dream = waiting(user)
    response = signed_in.post(address("cancel", dream))
    assert response["Location"] == address("dream", dream)
    dream.refresh_from_db()
    assert dream.cancel_requested_at is not None
    assert "Being cancelled" in visible_text(signed_in.get(address("dream", dream)))


def test_publish_shows_and_hides(signed_in, client, user):
    dream, stranger = done(user), Client()
    assert stranger.get(address("dream", dream)).status_code == 404
    signed_in.post(address("publish", dream), {"is_public": "1"})
    assert stranger.get(address("dream", dream)).status_code == 200
    signed_in.post(address("publish", dream), {"is_public": "0"})
    assert stranger.get(address("dream", dream)).status_code == 404


def test_delete_takes_the_dream_from_every_page(signed_in, user):
    dream = done(user, is_public=True)
    response = signed_in.post(address("delete", dream), follow=True)
    assert response.redirect_chain == [("/mine/", 302)]
    assert "The dream is deleted." in visible_text(response)
    for path in [address(name, dream) for name in LOOKS] + [address("picture", dream, 0)]:
        assert signed_in.get(path).status_code == 404, path


def test_again_is_the_same_wish_with_another_seed_once_for_each_click(signed_in, user):
    dream = done(user, "a cat", seed=5, tags=["cats"], is_public=True, num_images=2, style="night")
    submission = str(uuid.uuid4())
    places = {signed_in.post(address("again", dream), {"submission": submission})["Location"] for _ in range(2)}
    [twin] = Dream.objects.exclude(pk=dream.pk)
    assert places == {address("dream", twin)}
    for name in ("prompt", "style", "width", "height", "num_images", "is_public", "guidance_scale"):
        assert getattr(twin, name) == getattr(dream, name), name
    assert [tag.name for tag in twin.tags.all()] == ["cats"]
    assert twin.seed != 5


def test_again_of_somebody_elses_public_dream_is_mine_and_private(signed_in, user, other_user):
    dream = done(other_user, is_public=True, tags=["theirs"])
    signed_in.post(address("again", dream))
    [twin] = Dream.objects.filter(user=user)
    assert (twin.prompt, twin.is_public, twin.tags.count()) == ("a cat", False, 0)


def test_again_without_budget_says_so_on_the_dreams_page(signed_in, user, settings):
    settings.DREAMS_STARTING_BUDGET = Decimal("0.05")
    dream = done(user)
    response = signed_in.post(address("again", dream), follow=True)
    assert response.redirect_chain[0][0] == address("dream", dream)
    assert "This dream would cost" in visible_text(response)
    response = signed_in.post(address("again", dream), {"submission": "nonsense"}, follow=True)
    assert "the form was incomplete" in visible_text(response)


def test_acts_are_posts_with_a_token(user):
    dream = done(user)
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(user)
    for act in ACTS:
        assert strict.get(address(act, dream)).status_code == 405
        assert strict.post(address(act, dream)).status_code == 403
    refused = strict.post("/dream/", form_of())
    assert refused.status_code == 403
    assert "Please send it once more" in refused.content.decode()
    dream.refresh_from_db()
    assert (dream.deleted_at, dream.cancel_requested_at, dream.is_public) == (None, None, False)
    assert Dream.objects.count() == 1


# --- other people's ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [done, waiting])
def test_somebody_elses_dream_is_not_there(signed_in, other_user, make):
    dream = make(other_user, "a secret")
    looks = [address(name, dream) for name in LOOKS]
    looks += [
        address("picture", dream, 0),
        address("picture", dream, 0) + "?download=1",
        address("thumbnail", dream, 0),
    ]
    for path in looks:
        for client in (signed_in, Client()):
            response = client.get(path)
            assert response.status_code == 404, path
            assert "secret" not in response.content.decode()
    for act in ACTS:
        assert signed_in.post(address(act, dream)).status_code == 404
    dream.refresh_from_db()
    assert (dream.deleted_at, dream.cancel_requested_at, dream.is_public) == (None, None, False)


def test_somebody_elses_public_dream_can_be_seen_and_not_touched(signed_in, other_user):
    dream = done(other_user, is_public=True)
    for act in ("cancel", "delete", "publish"):
        assert signed_in.post(address(act, dream)).status_code == 404
    dream.refresh_from_db()
    assert (dream.deleted_at, dream.is_public) == (None, True)


def test_a_public_dream_on_its_way_is_its_owners_alone(signed_in, other_user):
    dream = waiting(other_user, is_public=True)
    for name in LOOKS:
        assert signed_in.get(address(name, dream)).status_code == 404


def test_strangers_who_act_are_asked_who_they_are_and_come_back_to_the_page(client, user):
    dream = done(user)
    for act in ACTS:
        response = client.post(address(act, dream))
        assert response.status_code == 302
        assert response["Location"].endswith(f"?next={address('dream', dream)}")
    assert Dream.objects.filter(deleted_at=None).count() == 1


def test_what_is_not_there_is_told_in_words(client):
    response = client.get(reverse("dreams:dream", args=[uuid.uuid4()]))
    assert response.status_code == 404
    assert "Page not found" in visible_text(response)


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_a_picture_is_its_file_for_its_owner_alone(signed_in, user):
    dream = done(user, width=192, height=128, num_images=2)
    first, second = (signed_in.get(address("picture", dream, index)) for index in (0, 1))
    assert first["Content-Type"] == "image/png"
    with default_storage.open(dream.pictures.get(index=0).file.name) as file:
        assert first.content == file.read()
    assert first.content != second.content
    for response in (first, signed_in.get(address("thumbnail", dream, 0))):
        assert response["X-Content-Type-Options"] == "nosniff"
        assert response["Cache-Control"].startswith("private")
        assert "Cookie" in response["Vary"]
        assert "Content-Disposition" not in response
    assert signed_in.get(address("thumbnail", dream, 0))["Content-Type"] == "image/webp"
    assert signed_in.get(address("picture", dream, 2)).status_code == 404


def test_a_picture_that_the_browser_has_is_not_sent_again(signed_in, user):
    dream = done(user)
    for name in ("picture", "thumbnail"):
        path = address(name, dream, 0)
        etag = signed_in.get(path)["ETag"]
        again = signed_in.get(path, headers={"If-None-Match": etag})
        assert (again.status_code, again.content) == (304, b"")
        assert again["ETag"] == etag
        assert signed_in.get(path, headers={"If-None-Match": '"another"'}).status_code == 200
    assert Client().get(path, headers={"If-None-Match": etag}).status_code == 404  # who may not see it learns nothing


@pytest.mark.parametrize(
    ("prompt", "name"),
    [('A cat; on "a" mat\r\nX: y', "a-cat-on-a-mat-x-y-7.png"), ("猫", "dream-7.png"), ("../../etc", "etc-7.png")],
)
def test_a_download_has_a_name_of_ours(signed_in, user, prompt, name):
    dream = done(user, prompt, seed=7)
    response = signed_in.get(address("picture", dream, 0) + "?download=1")
    assert response["Content-Disposition"] == f'attachment; filename="{name}"'


def test_a_picture_whose_file_is_lost_is_not_there(signed_in, user):
    dream = done(user)
    default_storage.delete(dream.pictures.get().file.name)
    assert signed_in.get(address("picture", dream, 0)).status_code == 404


# --- what pages ask of the database -----------------------------------------------------------------------------------


def test_a_dreams_page_asks_little(signed_in, user, django_assert_max_num_queries):
    dream = done(user, num_images=4, tags=["a", "b", "c"])
    with django_assert_max_num_queries(6):
        assert signed_in.get(address("dream", dream)).status_code == 200
    with django_assert_max_num_queries(4):
        assert signed_in.get(address("picture", dream, 0)).status_code == 200


def test_the_form_asks_little_however_many_dreams_there_are(signed_in, user, django_assert_max_num_queries):
    ledger.balance(user)
    many_done(user, 500)
    with django_assert_max_num_queries(9):
        html = signed_in.get("/dream/").content.decode()
    assert html.count('<li class="tile"') == 8


def test_own_pages_are_kept_by_no_cache(signed_in, user):
    dream = done(user)
    assert dream.finished_at <= timezone.now()
    for path in ("/dream/", "/mine/", "/costs/", address("dream", dream)):
        assert {"private", "no-cache"} <= set(signed_in.get(path)["Cache-Control"].split(", ")), path


# --- nothing is cut, refused or left out without a word ---------------------------------------------------------------


def test_the_page_says_that_a_prompt_was_cut(signed_in, user):
    assert "The prompt was cut" not in visible_text(signed_in.get(address("dream", done(user))))
    assert "The prompt was cut" in visible_text(signed_in.get(address("dream", done(user, is_prompt_cut=True))))


@pytest.mark.parametrize("submission", ["x", "", None, "\x00"])
def test_a_form_without_a_good_id_says_so_and_can_be_sent_again(signed_in, user, submission):
    form = {name: value for name, value in first_values().items() if name != "submission"} | {"prompt": "a cat"}
    broken = form if submission is None else form | {"submission": submission}
    response = signed_in.post(reverse("dreams:new"), broken)
    assert response.status_code == 422
    assert "the form had expired" in visible_text(response)
    [again] = re.findall(r'name="submission" value="([^"]+)"', response.content.decode())
    assert signed_in.post(reverse("dreams:new"), form | {"submission": again}).status_code == 302


def test_a_finished_dreams_snapshot_shows_all_steps(signed_in, user):
    snapshot = signed_in.get(address("progress", done(user, num_images=2, num_inference_steps=20))).json()
    assert (snapshot["step"], snapshot["steps"]) == (40, 40)


def test_costs_name_the_sizes_that_the_form_offers_and_no_others(signed_in):
    offered = re.findall(r'<option value="(\d{3})"', signed_in.get(reverse("dreams:new")).content.decode())
    priced = re.findall(r"(\d+) × \d+", visible_text(signed_in.get(reverse("dreams:costs"))))
    assert priced == offered


def test_a_style_is_a_radio_button_whose_label_holds_picture_and_words(signed_in):
    html = signed_in.get("/dream/").content.decode()
    labels = [label for label in re.findall(r"<label.*?</label>", html, re.DOTALL) if 'name="style"' in label]
    assert len(labels) == 1 + len(STYLES)
    for label, style in zip(labels, ["", *STYLES], strict=True):
        assert 'type="radio"' in label
        assert f'value="{style}"' in label
        assert f'src="/static/{picture_of(style)}" alt=""' in label  # the words beside it say the same
        assert (STYLES[style].label if style else "As it comes") in label
