"""Text beyond ASCII, on either database: what is the same to a reader is the same to searches, tags and names."""

from __future__ import annotations

import threading
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection
from django.http import HttpRequest

from newdreamflow.accounts.models import User
from newdreamflow.accounts.services import AddressTakenError, NameTakenError, sign_up
from newdreamflow.dreams import selectors, services
from newdreamflow.dreams.forms import DreamForm, first_values
from newdreamflow.dreams.models import Dream
from newdreamflow.dreams.styles import STYLES, styled
from newdreamflow.text import folded
from tests.site.dreaming import done

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(
    ("prompt", "search"),
    [
        ("Ein Äffchen im Baum", "äffchen"),
        ("ein äffchen im baum", "ÄFFCHEN"),
        ("Кот на Ёлке", "ёлке"),
        ("a cafe\u0301 at night", "caf\u00e9"),
        ("a caf\u00e9 at night", "CAFE\u0301"),
        ("eine Straße", "STRASSE"),
        ("\uff21\uff22\uff23 in wide letters", "abc"),
        ("Σίσυφος", "ΣΊΣΥΦΟΣ"),
    ],
)
def test_a_search_finds_every_way_to_write_a_word(user, prompt, search):
    dream = done(user, prompt)
    assert list(selectors.matching(selectors.own_dreams(user), search=search)) == [dream]
    assert not selectors.matching(selectors.own_dreams(user), search=f"{search}x").exists()


def test_a_tag_is_one_tag_however_it_is_written(user):
    for tags in ("Café", "cafe\u0301", "CAFÉ", "Straße", "STRASSE"):
        form = DreamForm(first_values() | {"prompt": "a cat", "tags": tags})
        assert form.is_valid(), form.errors
        services.submit(user=user, wish=form.wish())
    assert [tag.name for tag in selectors.common_tags(selectors.own_dreams(user))] == ["café", "strasse"]
    assert selectors.matching(selectors.own_dreams(user), search="CAFE\u0301").count() == 3


def test_deleting_a_dream_erases_what_searches_look_at_too(user):
    dream = done(user, "a secret")
    services.delete(dream=dream)
    dream = Dream.objects.get(pk=dream.pk)
    texts = [getattr(dream, field.name) for field in Dream._meta.fields if isinstance(getattr(dream, field.name), str)]
    assert not any("secret" in text for text in texts)


def test_folding_twice_is_folding_once():
    samples = "ÄäßẞΣςİıﬁⅣÅÅ", unicodedata.normalize("NFD", "Ёлка"), "ᾳ", "\u0345\u0301"
    for text in samples:
        assert folded(folded(text)) == folded(text)


@pytest.mark.parametrize("prompt", ["a cat", "red cat sky " * 80, "x" * 1000, "кот на ёлке " * 20, "🐈" * 30])
def test_a_styles_words_stand_among_the_tokens_that_the_encoder_reads(prompt):
    """A token has at least one byte that is no space; the encoder of SD 1.x reads 75."""
    for key, style in STYLES.items():
        sent = styled(prompt.strip(), key)
        assert style.words in sent
        before = sent[: sent.index(style.words)]
        assert len("".join(before.split()).encode()) + len(style.words.replace(",", " ,").split()) * 2 <= 75


def test_two_styles_of_one_long_prompt_do_not_come_to_the_same():
    """What the encoder reads, here by its first 75 words."""
    read = {tuple(styled("red cat sky " * 80, key).split()[:75]) for key in STYLES}
    assert len(read) == len(STYLES)


# --- names of people --------------------------------------------------------------------------------------------------

SAME = [
    ("änn", "ÄNN"),
    ("Ёж", "ёж"),
    ("ann", "ANN"),
    ("straße", "STRASSE"),
    ("caf\u00e9", "cafe\u0301"),
    ("ＡＢＣ", "abc"),
]
PASSWORD = "a long walk by the sea"


@pytest.mark.parametrize(("name", "other"), SAME)
def test_a_name_is_one_account_in_every_spelling(client, name, other):
    sign_up(username=name, email="one@example.org", password=PASSWORD)
    with pytest.raises(NameTakenError):
        sign_up(username=other, email="two@example.org", password=PASSWORD)
    for spelling in (name, other):
        assert client.login(request=HttpRequest(), username=spelling, password=PASSWORD)


@pytest.mark.parametrize(("name", "other"), SAME)
def test_the_database_itself_lets_one_spelling_in(name, other):
    User.objects.create_user(name, "one@example.org")
    with pytest.raises(IntegrityError):
        User.objects.create_user(other, "two@example.org")
    with pytest.raises(ValidationError, match="Another account has this name"):
        User(username=other, email="two@example.org", password="x").full_clean()


@pytest.mark.parametrize("wanted", ["name", "address"])
def test_of_simultaneous_sign_ups_one_gets_the_name_or_address(wanted):
    start = threading.Barrier(8)

    def one(number):
        try:
            start.wait(10)
            same = SAME[0][number % 2]
            name, part = (same, number) if wanted == "name" else (f"ada{number}", same)
            sign_up(username=name, email=f"{part}@example.org", password=PASSWORD)
        except (AddressTakenError, NameTakenError):
            return False
        finally:
            connection.close()
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(one, range(8))) == [False] * 7 + [True]
    assert User.objects.count() == 1


def test_accounts_that_are_older_than_the_rule_keep_working(client):
    """Two that differ in spelling only, from before: the second one's key has a number behind it."""
    first = User.objects.create_user("änn", "one@example.org", PASSWORD)
    second = User.objects.create_user("other", "two@example.org", "another one")
    User.objects.filter(pk=second.pk).update(username="ÄNN", name_key=f"änn#{second.pk}")
    second.refresh_from_db()
    second.save()
    assert client.login(request=HttpRequest(), username="ÄNN", password="another one")
    assert client.login(request=HttpRequest(), username="two@example.org", password="another one")
    assert client.login(request=HttpRequest(), username="änn", password=PASSWORD)
    assert User.objects.get_by_natural_key("Änn") == first
