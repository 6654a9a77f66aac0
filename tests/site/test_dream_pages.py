"""Asking for a dream, looking at it, and what can be done with it."""

from __future__ import annotations

import re
import uuid
from decimal import Decimal

import pytest
from django.test import Client

from newdreamflow.dreams import ledger, services
from newdreamflow.dreams.forms import first_values
from newdreamflow.dreams.models import Dream
from tests.site.dream_forms import ACTS, LOOKS, address, visible_text
from tests.site.dreaming import done, failed, waiting

pytestmark = pytest.mark.django_db


def form_of(**changes):
    return first_values() | {"prompt": "a cat"} | changes


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
