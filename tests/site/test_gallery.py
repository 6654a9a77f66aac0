"""The lists of dreams: whose, found by what, how many to a page, and what that asks of the database."""

from __future__ import annotations

import re

import pytest
from django.urls import reverse

from newdreamflow.dreams import selectors, services
from tests.site.dreaming import done, failed, many_done, waiting

pytestmark = pytest.mark.django_db

GALLERY, MINE = "/", "/mine/"


def captions(response):
    return re.findall(r'<span class="caption">(.*?)</span>', response.content.decode())


def test_the_gallery_shows_strangers_what_is_public_and_finished(client, user):
    done(user, "a public cat", is_public=True)
    done(user, "a private cat")
    waiting(user, "a cat to come", is_public=True)
    services.delete(dream=done(user, "a deleted cat", is_public=True))
    response = client.get(GALLERY)
    assert captions(response) == ["a public cat"]


def test_mine_are_all_of_mine_and_nobody_elses(client, user, other_user):
    done(other_user, "not mine", is_public=True)
    for dream in (done(user, "drawn"), waiting(user, "waiting"), failed(user)):
        assert dream.user == user
    client.force_login(user)
    response = client.get(MINE)
    assert captions(response) == ["a cat", "waiting", "drawn"]
    assert "Waiting…" in response.content.decode()
    assert "Failed" in response.content.decode()


def test_mine_is_for_those_who_have_signed_in(client):
    response = client.get(MINE)
    assert response.status_code == 302
    assert response["Location"].endswith("?next=/mine/")


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("q=cat", ["a CAT by the sea", "a cat at night"]),
        ("q=night cat", ["a cat at night"]),
        ("q=animals", ["a CAT by the sea", "an owl"]),
        ("q=anim cat", ["a CAT by the sea"]),
        ("q=%25", []),
        ("q=_", []),
        ("q=dog", []),
        ("tag=animals", ["a CAT by the sea", "an owl"]),
        ("tag=animals&q=owl", ["an owl"]),
        ("tag=nothing", []),
        ("q=%00", ["a CAT by the sea", "an owl", "a cat at night"]),
        ("q=", ["a CAT by the sea", "an owl", "a cat at night"]),
    ],
)
def test_dreams_are_found_by_words_of_prompts_and_tags(client, user, question, found):
    done(user, "a cat at night", is_public=True)
    done(user, "an owl", tags=["animals"], is_public=True)
    done(user, "a CAT by the sea", tags=["animals", "animation"], is_public=True)
    client.force_login(user)
    for address in (GALLERY, MINE):
        assert captions(client.get(f"{address}?{question}")) == found


def test_what_was_searched_for_is_shown_as_text(client, user):
    done(user, is_public=True)
    shown = client.get("/", {"q": '"><script>alert(1)</script>'}).content.decode()
    assert "<script>alert" not in shown
    assert "&lt;script&gt;alert" in shown


def test_empty_lists_say_what_to_do(client, user):
    assert "No dream is shown here yet" in client.get(GALLERY).content.decode()
    client.force_login(user)
    assert "Your dreams will hang here" in client.get(MINE).content.decode()
    done(user)
    assert "None of your dreams matches that search" in client.get(f"{MINE}?q=dog").content.decode()


def test_thumbnails_load_late_and_have_their_size_at_once(client, user):
    done(user, "a wide one", is_public=True, width=768, height=512)
    [image] = re.findall(r"<img[^>]*small/[^>]*>", client.get(GALLERY).content.decode())
    assert 'loading="lazy"' in image
    assert 'width="384" height="256"' in image
    assert 'alt="a wide one"' in image


@pytest.mark.parametrize("address", [GALLERY, MINE, GALLERY + "?q=dream&tag=tag-3", MINE + "?q=tag&page=2"])
def test_lists_of_500_dreams_are_bounded_in_queries_and_length(client, user, address, django_assert_max_num_queries):
    many_done(user, 500, is_public=True)
    client.force_login(user)
    with django_assert_max_num_queries(7):
        response = client.get(address)
    assert 0 < len(captions(response)) <= selectors.DREAMS_A_PAGE
    assert len(response.content) < 60_000


def test_pages_lead_to_each_other_and_keep_the_search(client, user):
    many_done(user, 60, is_public=True)
    first = client.get("/?q=dream").content.decode()
    assert "Page 1 of 3" in first
    assert 'rel="next" href="?q=dream&amp;page=2"' in first
    second = client.get("/?q=dream&page=2")
    assert 'rel="prev" href="?q=dream&amp;page=1"' in second.content.decode()
    assert not set(captions(client.get("/?q=dream"))) & set(captions(second))


@pytest.mark.parametrize(("page", "shown"), [("0", 2), ("99", 2), ("x", 1), ("-1", 2)])
def test_a_page_that_there_is_not_is_the_nearest(client, user, page, shown):
    many_done(user, 30, is_public=True)
    assert f"Page {shown} of 2" in client.get(f"/?page={page}").content.decode()


def test_the_most_common_tags_come_first_and_lead_to_their_dreams(client, user, other_user):
    for tags in (["sea"], ["sea", "night"], ["night", "sea"], ["owl"]):
        done(user, tags=tags, is_public=True)
    done(other_user, tags=["secret"])
    names = [tag.name for tag in selectors.common_tags(selectors.public_dreams())]
    assert names == ["sea", "night", "owl"]
    assert "owl" not in re.findall(r'href="\?tag=([^"]+)"', client.get(GALLERY).content.decode()), "of one dream only"
    shown = client.get("/?tag=night").content.decode()
    assert 'href="?tag=sea"' in shown
    assert "secret" not in shown


def test_tiles_of_dreams_on_their_way_know_whom_to_ask(client, user):
    dream = waiting(user)
    client.force_login(user)
    assert f'data-progress="{reverse("dreams:progress", args=[dream.uuid])}"' in client.get(MINE).content.decode()


def test_a_visitor_is_led_to_signing_up_and_told_what_comes_free(client, user):
    done(user, is_public=True)
    page = client.get(GALLERY).content.decode()
    assert 'href="/accounts/sign-up/?next=/dream/"' in page
    assert "100 credits to begin with" in page
    assert "by ada" in page
    client.force_login(user)
    assert "credits to begin with" not in client.get(GALLERY).content.decode()
