"""Signing up, signing in, and lost passwords."""

from __future__ import annotations

import datetime
from decimal import Decimal
from smtplib import SMTPServerDisconnected

import pytest
from axes.models import AccessAttempt
from django.contrib.auth import get_user
from django.core import mail
from django.urls import reverse
from django.utils import timezone

from newdreamflow.accounts import limits, services
from newdreamflow.accounts.models import User
from newdreamflow.dreams import ledger
from tests.site.account_helpers import PASSWORD, SIGN_IN, SIGN_UP, link_in, text

pytestmark = pytest.mark.django_db


# --- signing up -------------------------------------------------------------------------------------------------------


def test_signing_up_signs_in_and_leads_to_the_first_dream(client):
    response = client.post("/accounts/sign-up/", SIGN_UP)
    assert response.status_code == 302
    assert response["Location"] == reverse("dreams:new")
    assert get_user(client).username == "ida"


def test_a_new_account_has_the_starting_budget(client):
    client.post("/accounts/sign-up/", SIGN_UP)
    assert ledger.balance(User.objects.get(username="ida")) == Decimal(100)


def test_after_signing_up_one_is_where_one_wanted_to_be(client):
    response = client.post("/accounts/sign-up/", SIGN_UP | {"next": "/costs/"})
    assert response["Location"] == "/costs/"


def test_nobody_is_sent_to_another_site(client):
    response = client.post("/accounts/sign-up/", SIGN_UP | {"next": "https://evil.example/"})
    assert response["Location"] == reverse("dreams:new")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"username": "ADA"}, "Somebody else has this name"),
        ({"email": "ADA@example.ORG"}, "This address has an account already"),
        ({"password": "12"}, "This password is too short"),
        ({"password": "password1"}, "This password is too common"),
        ({"password": "ida@example.org"}, "too similar to the e-mail address"),
        ({"username": "a@b.example"}, "Letters, digits, dots, hyphens and underscores only"),
        ({"username": "i"}, "at least 2 characters"),
        ({"username": "\u3164\u3164"}, "invisible characters"),
        ({"username": "Аnn"}, "Latin, Greek and Cyrillic letters, which look alike"),
        ({"username": ""}, "Please fill this in"),
        ({"email": "nowhere"}, "Must be an e-mail address"),
        ({"username": "i\x00a"}, "Must not contain null characters"),
    ],
)
def test_what_is_wrong_is_said_beside_the_field_and_no_account_is_made(client, user, changed, words):
    response = client.post("/accounts/sign-up/", SIGN_UP | changed)
    assert response.status_code == 200
    assert words in text(response)
    [field] = changed
    assert f'id="id_{field}_error"' in response.content.decode()
    assert User.objects.count() == 1


def test_an_account_waits_for_its_link_where_mail_can_be_sent(client, with_mail):
    response = client.post("/accounts/sign-up/", SIGN_UP)
    assert "ida@example.org" in text(response)
    assert get_user(client).is_anonymous
    response = client.post("/accounts/sign-in/", {"username": "ida", "password": PASSWORD})
    assert "follow the link in the mail" in text(response)
    [message] = mail.outbox
    assert message.to == ["ida@example.org"]
    link = link_in(message)
    assert "Welcome, ida" in text(client.get(link))
    assert not User.objects.get(username="ida").is_active, "looking at the link is not following it"
    assert client.post(link)["Location"] == reverse("accounts:sign-in")
    client.post("/accounts/sign-in/", {"username": "ida", "password": PASSWORD})
    assert get_user(client).username == "ida"


def test_a_link_works_once(client, with_mail):
    client.post("/accounts/sign-up/", SIGN_UP)
    link = link_in(mail.outbox[0])
    client.post(link)
    response = client.post(link)
    assert response.status_code == 404
    assert "does not work any more" in text(response)


@pytest.mark.parametrize("link", ["MQ/abc-def", "%00/x", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAA/x", "é/x"])
def test_made_up_links_are_no_links(client, link):
    assert client.get(f"/accounts/confirm/{link}/").status_code == 404


def test_a_taken_address_looks_like_a_free_one(client, user, with_mail):
    free = client.post("/accounts/sign-up/", SIGN_UP)
    taken = client.post("/accounts/sign-up/", SIGN_UP | {"username": "idb", "email": "ada@example.org"})
    assert text(taken).replace("ada@", "ida@") == text(free)
    assert taken.status_code == free.status_code
    assert "exists already" in mail.outbox[1].body
    assert not User.objects.filter(username="idb").exists()


def test_the_last_to_sign_up_with_an_address_has_the_password_that_its_link_switches_on(client, with_mail):
    client.post("/accounts/sign-up/", SIGN_UP | {"username": "thief", "password": "chosen by a thief"})
    client.post("/accounts/sign-up/", SIGN_UP)
    stolen, link = map(link_in, mail.outbox)
    assert client.post(stolen).status_code == 404
    client.post(link)
    [ida] = User.objects.all()
    assert ida.username == "ida"
    assert ida.check_password(PASSWORD)


def test_a_name_that_nobody_confirmed_is_free_after_a_day(client, with_mail):
    client.post("/accounts/sign-up/", SIGN_UP)
    again = SIGN_UP | {"email": "other@example.org"}
    assert "Somebody else has this name" in text(client.post("/accounts/sign-up/", again))
    User.objects.update(date_joined=timezone.now() - datetime.timedelta(days=1, minutes=1))
    assert "other@example.org" in text(client.post("/accounts/sign-up/", again))


def test_no_account_is_made_when_its_mail_cannot_be_sent(client, with_mail, monkeypatch):
    def send_mail(*_arguments):
        raise SMTPServerDisconnected

    monkeypatch.setattr(services, "send_mail", send_mail)
    assert "could not be sent" in text(client.post("/accounts/sign-up/", SIGN_UP))
    assert not User.objects.exists()


# --- signing in and out -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ada", "ada@example.org", "ADA@EXAMPLE.ORG"])
def test_one_signs_in_by_name_or_address(client, user, name):
    client.post("/accounts/sign-in/", SIGN_IN | {"username": name})
    assert get_user(client) == user


def test_a_wrong_password_and_an_unknown_name_read_the_same(client, user):
    wrong = client.post("/accounts/sign-in/", SIGN_IN | {"password": "wrong"})
    unknown = client.post("/accounts/sign-in/", SIGN_IN | {"username": "nobody"})
    assert "Wrong name or password" in text(wrong)
    assert text(wrong) == text(unknown)


def test_a_closed_account_is_told_so_by_its_password_alone(client, user):
    User.objects.update(is_active=False)
    assert "This account was closed" in text(client.post("/accounts/sign-in/", SIGN_IN))
    assert "closed" not in text(client.post("/accounts/sign-in/", SIGN_IN | {"password": "wrong"}))
    assert get_user(client).is_anonymous


def test_closing_an_account_ends_its_sessions(client, user):
    client.post("/accounts/sign-in/", SIGN_IN)
    User.objects.update(is_active=False)
    assert get_user(client).is_anonymous


def test_signing_out_wants_a_form(client, user):
    client.force_login(user)
    assert client.get("/accounts/sign-out/").status_code == 405
    client.post("/accounts/sign-out/")
    assert get_user(client).is_anonymous


def test_ten_wrong_passwords_lock_the_name_for_this_caller_in_words(client, user):
    for _ in range(10):
        response = client.post("/accounts/sign-in/", SIGN_IN | {"password": "wrong"})
    assert response.status_code == 429
    assert "Too many wrong passwords" in text(response)
    assert client.post("/accounts/sign-in/", SIGN_IN).status_code == 429
    elsewhere = client.post("/accounts/sign-in/", SIGN_IN, REMOTE_ADDR="198.51.100.7")
    assert elsewhere.status_code == 302, "nobody can lock a stranger out"


@pytest.mark.parametrize(
    "spellings",
    [
        ["ada", "ada@example.org", "Ada@example.org", "ada@EXAMPLE.org", " ada "],
        # Of an account that is not there too: else the lock would tell which addresses have one.
        ["nobody@example.org", "Nobody@example.org", "nobody@EXAMPLE.org", "NOBODY@example.org", "nobody@Example.Org"],
    ],
)
def test_the_lock_counts_every_spelling_of_one_account_together(client, user, spellings):
    statuses = [
        client.post("/accounts/sign-in/", {"username": spelling, "password": "wrong"}).status_code
        for spelling in spellings * 2
    ]
    assert statuses == [200] * 9 + [429]


def test_who_signs_in_by_address_begins_to_count_anew(client, user):
    for spelling in ["ada", "Ada@example.org"] * 4:
        client.post("/accounts/sign-in/", {"username": spelling, "password": "wrong"})
    client.post("/accounts/sign-in/", SIGN_IN | {"username": "ADA@example.org"})
    client.logout()
    for _ in range(9):
        assert client.post("/accounts/sign-in/", SIGN_IN | {"password": "wrong"}).status_code == 200


def test_a_name_as_long_as_a_form_may_be_is_nobodys(client):
    response = client.post("/accounts/sign-in/", {"username": "x" * 60_000, "password": "wrong"})
    assert "Wrong name or password" in text(response)
    assert len(AccessAttempt.objects.get().username) == 255


def test_many_names_from_one_address_are_stopped_too(client, user, monkeypatch):
    monkeypatch.setattr(
        "newdreamflow.accounts.views.SignIn.limit", limits.Limit("sign-in", 3, datetime.timedelta(hours=1))
    )
    for name in ("bob", "cat", "dog"):
        assert client.post("/accounts/sign-in/", {"username": name, "password": "x"}).status_code == 200
    response = client.post("/accounts/sign-in/", SIGN_IN)
    assert response.status_code == 429
    assert "Please try again in 60 minutes" in text(response)


def test_who_is_signed_in_already_goes_on(client, user):
    client.force_login(user)
    assert client.get("/accounts/sign-in/?next=/costs/")["Location"] == "/costs/"


def test_signing_in_never_leads_to_signing_in(client, user):
    here = "/accounts/sign-in/?next=/accounts/sign-in/"
    assert client.post(here, SIGN_IN)["Location"] == reverse("dreams:new")
    assert client.get(here)["Location"] == reverse("dreams:new")


# --- lost passwords ---------------------------------------------------------------------------------------------------


def test_a_lost_password_is_reset_by_mail(client, user):
    response = client.post("/accounts/password/reset/", {"email": "ADA@example.org"}, HTTP_HOST="evil.example")
    assert response["Location"] == reverse("accounts:password-reset-done")
    assert "a link is on its way" in text(client.get(response["Location"]))
    [message] = mail.outbox
    assert "evil.example" not in message.body
    page = client.get(link_in(message), follow=True)
    assert "Choose a new password" in text(page)
    new = {"new_password1": PASSWORD, "new_password2": PASSWORD}
    assert "Your password is changed" in text(client.post(page.redirect_chain[-1][0], new, follow=True))
    user.refresh_from_db()
    assert user.check_password(PASSWORD)
    assert "does not work any more" in text(client.get(link_in(message), follow=True))


def test_an_unknown_address_looks_like_a_known_one(client, user):
    known = client.post("/accounts/password/reset/", {"email": "ada@example.org"}, follow=True)
    unknown = client.post("/accounts/password/reset/", {"email": "nobody@example.org"}, follow=True)
    assert text(known) == text(unknown)
    assert len(mail.outbox) == 1


def test_nobodys_mailbox_is_filled_whoever_asks(client, user):
    for number in range(3):
        address = f"198.51.100.{number}"
        client.post("/accounts/password/reset/", {"email": "ada@example.org"}, REMOTE_ADDR=address)
    response = client.post("/accounts/password/reset/", {"email": "Ada@Example.org"}, REMOTE_ADDR="198.51.100.9")
    assert response.status_code == 429
    assert len(mail.outbox) == 3


def test_a_password_is_changed_by_the_old_one(client, user):
    client.force_login(user)
    new = {"old_password": "correct horse", "new_password1": PASSWORD, "new_password2": PASSWORD}
    assert "Your password is changed" in text(client.post("/accounts/password/", new, follow=True))
    assert get_user(client) == user, "one stays signed in"
