"""`manage.py demo`: an account to look around with."""

from __future__ import annotations

import re

import pytest
from django.core.management import CommandError, call_command

from newdreamflow.accounts.models import User
from newdreamflow.dreams import services
from newdreamflow.dreams.models import Dream

pytestmark = pytest.mark.django_db


def test_demo_prints_a_password_once_that_works(client, capsys):
    call_command("demo")
    name, password = re.search(r"as (\S+) with the password (\S+)", capsys.readouterr().out).groups()
    assert client.post("/accounts/sign-in/", {"username": name, "password": password}).status_code == 302
    call_command("demo")
    assert password not in capsys.readouterr().out
    assert User.objects.get().check_password(password), "running it again does no harm"


def test_demo_dreams_are_made_once_public_ones_too(capsys):
    call_command("demo")
    call_command("demo")
    assert "0 dreams are new" in capsys.readouterr().out
    dreams = Dream.objects.all()
    assert len(dreams) == len({dream.prompt for dream in dreams}) == 6
    assert {dream.is_public for dream in dreams} == {True, False}
    assert all(dream.tags.exists() for dream in dreams)


def test_a_demo_dream_that_was_deleted_stays_away():
    call_command("demo")
    services.delete(dream=Dream.objects.first())
    call_command("demo")
    assert Dream.objects.present().count() == 5


def test_demo_makes_no_account_where_everybody_could_use_it(settings):
    settings.IS_PUBLIC = True
    with pytest.raises(CommandError, match="--force"):
        call_command("demo")
    assert not User.objects.exists()
    call_command("demo", force=True)
    assert User.objects.exists()


def test_demo_stops_at_an_empty_purse_in_words(settings, capsys):
    settings.DREAMS_STARTING_BUDGET = 0
    call_command("demo")
    assert "No more dreams" in capsys.readouterr().err
