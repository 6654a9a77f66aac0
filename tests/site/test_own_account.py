"""A user's own page: budget, another address, the end of the account."""

from __future__ import annotations

import datetime
from decimal import Decimal

import pytest
from django.contrib.auth import get_user
from django.core import mail

from newdreamflow.accounts import limits
from newdreamflow.accounts.models import User
from newdreamflow.dreams import ledger
from tests.site.account_helpers import SIGN_IN, SIGN_UP, link_in, text
from tests.site.dreaming import done

pytestmark = pytest.mark.django_db


# --- one's own page ---------------------------------------------------------------------------------------------------


def test_ones_own_page_says_what_is_left(client, user):
    client.force_login(user)
    ledger.grant(user=user, amount=Decimal("12.5"))
    assert "112.50 credits left" in text(client.get("/accounts/"))


def test_an_empty_purse_is_put_into_words(client, user, settings):
    settings.DREAMS_STARTING_BUDGET = Decimal("0.5")
    client.force_login(user)
    assert "The site’s operator can give you more" in text(client.get("/accounts/"))


def test_ones_own_page_is_ones_own(client):
    assert client.get("/accounts/")["Location"].startswith("/accounts/sign-in/")


# --- another address, and no account any more -------------------------------------------------------------------------

OTHER = {"email": "lovelace@example.org", "password": "correct horse"}


def test_the_address_is_changed_by_the_password(client, user):
    client.force_login(user)
    assert "Wrong password" in text(client.post("/accounts/address/", OTHER | {"password": "wrong"}))
    assert "Your address is changed" in text(client.post("/accounts/address/", OTHER, follow=True))
    client.logout()
    client.post("/accounts/sign-in/", SIGN_IN | {"username": "LOVELACE@example.org"})
    assert get_user(client) == user


def test_an_address_that_is_taken_is_refused(client, user, other_user):
    client.force_login(user)
    assert "Another account has this address" in text(
        client.post("/accounts/address/", OTHER | {"email": "BOB@example.org"})
    )


def test_where_mail_can_be_sent_the_new_address_is_confirmed_first(client, user, other_user, with_mail):
    client.force_login(user)
    free = client.post("/accounts/address/", OTHER, follow=True)
    taken = client.post("/accounts/address/", OTHER | {"email": "bob@example.org"}, follow=True)
    assert text(taken).replace("bob@", "lovelace@") == text(free), "nobody learns which addresses have an account"
    user.refresh_from_db()
    assert user.email == "ada@example.org"
    link = link_in(mail.outbox[0])
    assert "lovelace@example.org" in text(client.get(link))
    client.force_login(other_user)
    assert client.post(link).status_code == 404, "it is for the account that asked"
    client.force_login(user)
    assert "Your address is changed" in text(client.post(link, follow=True))
    user.refresh_from_db()
    assert user.email == "lovelace@example.org"
    assert client.post(link).status_code == 404, "it works once"


def test_deleting_an_account_erases_the_person_and_keeps_the_books(client, user):
    dream = done(user, "a secret", tags=["secret"], is_public=True)
    client.force_login(user)
    sure = {"password": "correct horse", "is_sure": "on"}
    assert "Please tick this" in text(client.post("/accounts/delete/", sure | {"is_sure": ""}))
    assert "Wrong password" in text(client.post("/accounts/delete/", sure | {"password": "wrong"}))
    assert User.objects.get(pk=user.pk).is_active
    assert "Your account and your dreams are deleted" in text(client.post("/accounts/delete/", sure, follow=True))
    assert get_user(client).is_anonymous
    gone = User.objects.get(pk=user.pk)
    assert not {"ada", "ada@example.org"} & {str(value) for value in vars(gone).values()}
    dream.refresh_from_db()
    assert (dream.prompt, dream.folded_prompt, dream.pictures.count()) == ("", "", 0)
    assert ledger.balance(gone) == 100 - dream.cost
    response = client.post("/accounts/sign-up/", SIGN_UP | {"username": "ada", "email": "ada@example.org"})
    assert response.status_code == 302, "name and address are free again"


def test_guesses_of_the_password_are_counted(client, user, monkeypatch):
    client.force_login(user)
    monkeypatch.setattr(
        "newdreamflow.accounts.views._OwnFormView.limit", limits.Limit("sign-in", 3, datetime.timedelta(hours=1))
    )
    for page in ("address", "delete", "address"):
        assert client.post(f"/accounts/{page}/", OTHER | {"password": "wrong"}).status_code == 200
    assert client.post("/accounts/delete/", OTHER | {"password": "wrong"}).status_code == 429


def test_forms_that_were_refused_do_not_count_as_accounts(client, user):
    for _ in range(30):
        assert "Please fill this in" in text(client.post("/accounts/sign-up/", SIGN_UP | {"email": ""}))
        assert "Somebody else has" in text(client.post("/accounts/sign-up/", SIGN_UP | {"username": "ada"}))
    assert client.post("/accounts/sign-up/", SIGN_UP).status_code == 302
