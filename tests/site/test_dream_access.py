"""Other people's dreams, and pictures."""

from __future__ import annotations

import re
import uuid

import pytest
from django.core.files.storage import default_storage
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from newdreamflow.dreams import ledger
from newdreamflow.dreams.forms import first_values
from newdreamflow.dreams.models import Dream
from newdreamflow.dreams.styles import STYLES, picture_of
from tests.site.dream_forms import ACTS, LOOKS, address, visible_text
from tests.site.dreaming import done, many_done, waiting

pytestmark = pytest.mark.django_db


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
