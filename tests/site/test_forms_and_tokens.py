"""Whether another site's page can send a form of ours: at every address of the URLconf, whoever thought of it."""

from __future__ import annotations

import uuid
from html.parser import HTMLParser

import pytest
from axes.models import AccessAttempt, AccessFailureLog, AccessLog
from django.apps import apps
from django.contrib.auth.models import Group
from django.contrib.auth.tokens import default_token_generator
from django.contrib.contenttypes.models import ContentType
from django.test import Client
from django.urls import reverse
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode

from newdreamflow.accounts.models import User
from newdreamflow.accounts.tokens import confirmation_tokens
from newdreamflow.dreams import photos
from newdreamflow.dreams.models import Dream, LedgerEntry
from tests.site.addresses import routes
from tests.site.dreaming import done, failed, png, waiting

pytestmark = pytest.mark.django_db

NO_PAGES = {"dreams:events", "dreams:progress"}
"""What a script asks for; run in an event loop of their own, they would close the test's connection to the database."""


class Forms(HTMLParser):
    """The forms of a page that are sent by POST: how many tokens each of them carries."""

    def __init__(self, page):
        super().__init__()
        self.tokens = []
        self._is_inside = False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        told = dict(attributes)
        if tag == "form":
            self._is_inside = (told.get("method") or "").lower() == "post"
            self.tokens += [0] * self._is_inside
        elif tag == "input" and self._is_inside and told.get("name") == "csrfmiddlewaretoken" and told.get("value"):
            self.tokens[-1] += 1

    def handle_endtag(self, tag):
        self._is_inside = self._is_inside and tag != "form"


@pytest.fixture
def boss(db):
    """Staff, and somebody who dreams."""
    return User.objects.create_superuser("boss", "boss@example.org", "very secret indeed")


@pytest.fixture
def addresses(boss):
    """Every address that there is, as (name of its route, path); at each of them there is something."""
    pending = User.objects.create_user("new", "new@example.org", is_pending=True, is_active=False)
    dreams = [done(boss, tags=["sea"]), waiting(boss), failed(boss)]
    Group.objects.create(name="staff")
    AccessAttempt.objects.create(username="ada", failures_since_start=1)
    AccessLog.objects.create(username="ada")
    AccessFailureLog.objects.create(username="ada")
    known = {
        "index": 0,
        "name": photos.keep(boss, png(dreams[0])),
        "id": boss.pk,
        "uid": urlsafe_base64_encode(force_bytes(pending.pk)),
        "uidb64": urlsafe_base64_encode(force_bytes(boss.pk)),
        "content_type_id": ContentType.objects.get_for_model(Dream).pk,
        "object_id": dreams[0].pk,
        "app_label": "dreams",
        "url": "nowhere/",
    }
    tokens = {
        "accounts:confirm": confirmation_tokens.make_token(pending),
        "accounts:password-reset-confirm": default_token_generator.make_token(boss),
    }
    found = []
    for route in routes():
        arguments = known | {"token": tokens.get(route.name)}
        match route.pattern.split("/"):
            case ["admin", app, model, "<object_id>", *_] if app != "r":
                arguments["object_id"] = apps.get_model(app, model).objects.first().pk
        found += [(route.name, route.address(uuid=dream.uuid, **arguments)) for dream in dreams]
    return list(dict.fromkeys(found))


def visitors(boss, **options):
    """A stranger, and somebody who may see everything."""
    stranger, known = Client(**options), Client(**options)
    known.force_login(boss)
    return stranger, known


def test_every_form_carries_a_token(boss, addresses):
    """
    Its own one, whoever looks, and whether the page comes at once or after a redirect.
    """
    have_forms = set()
    for visitor in visitors(boss):
        for name, address in addresses:
            if name in NO_PAGES:
                continue
            response = visitor.get(address, follow=True)
            assert response.status_code < 500, address
            if response["Content-Type"].startswith("text/html"):
                tokens = Forms(response.content.decode()).tokens
                assert set(tokens) <= {1}, (address, tokens)
                have_forms |= {name} if tokens else set()
    # Of these we know that they have one; were they not among them, nothing was looked at.
    assert have_forms >= {
        *(f"accounts:{page}" for page in ("sign-up", "sign-in", "confirm")),
        *(f"accounts:password-{page}" for page in ("change", "reset", "reset-confirm")),
        *("dreams:new", "dreams:dream", "admin:accounts_user_changelist", "admin:dreams_dream_changelist"),
    }


def test_nothing_is_taken_without_a_token_at_any_address(boss, addresses):
    before = list(Dream.objects.values())
    for visitor in visitors(boss, enforce_csrf_checks=True):
        for _, address in addresses:
            response = visitor.post(address)
            assert response.status_code == 403, address
            assert "Please send it once more" in response.content.decode(), address
    assert list(Dream.objects.values()) == before


def test_credits_are_not_given_without_a_token(boss, user):
    """
    Their form is the answer to a POST, so no look at the addresses finds it.
    """
    people = reverse("admin:accounts_user_changelist")
    asked = {"action": "give_credits", "_selected_action": [user.pk]}
    filled = asked | {"amount": "25", "note": "a present", "submission": str(uuid.uuid4())}
    _, visitor = visitors(boss)
    page = visitor.post(people, asked).content.decode()
    assert 'name="amount"' in page
    assert set(Forms(page).tokens) == {1}
    _, strict = visitors(boss, enforce_csrf_checks=True)
    assert strict.post(people, filled).status_code == 403
    assert not LedgerEntry.objects.filter(user=user).exists()
