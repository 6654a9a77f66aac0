"""What staff see and may do: the overview, dreams, people and their credits, the ledger."""

from __future__ import annotations

import datetime
import re
import uuid
from decimal import Decimal

import pytest
from axes.models import AccessAttempt, AccessFailureLog, AccessLog
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.urls import reverse
from django.utils import timezone

from newdreamflow.dreams import ledger, services, staff_statistics
from newdreamflow.dreams.models import Budget, Dream, LedgerEntry, Tag
from newdreamflow.dreams.services import Wish
from server.worker.fake_pictures import fake_info
from tests.site.addresses import routes

pytestmark = pytest.mark.django_db

DAY = datetime.timedelta(days=1)


def text(response):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", response.content.decode()))


@pytest.fixture
def boss(db):
    return get_user_model().objects.create_superuser("boss", "boss@example.org", "very secret indeed")


def ended(user, status="done", *, took_s=1.0, ago=datetime.timedelta(hours=1), **columns):
    """A dream that ended so long ago."""
    finished_at = timezone.now() - ago
    created_at = finished_at - datetime.timedelta(seconds=took_s)
    return Dream(
        user=user, prompt="x", seed=1, status=status, created_at=created_at, finished_at=finished_at, **columns
    )


# --- the overview -----------------------------------------------------------------------------------------------------


def test_whoever_is_not_staff_is_told_that_there_is_no_such_page(client, user):
    assert client.get("/staff/").status_code == 404
    client.force_login(user)
    assert client.get("/staff/").status_code == 404


def test_the_overview_of_an_empty_site_says_so(client, staff_user):
    client.force_login(staff_user)
    page = client.get("/staff/")
    assert page.status_code == 200
    assert "cannot be reached" in text(page)
    assert "0 dreams in 30 days" in text(page)


def test_the_overview_tells_how_the_gpu_server_is(client, staff_user, gpu_server):
    client.force_login(staff_user)
    page = text(client.get("/staff/"))
    assert "GPU server healthy" in page
    assert f"ready no device {fake_info('fake', 2).engine_class} 0 2" in page


def test_the_overview_tells_that_the_worker_is_away(client, staff_user, user):
    client.force_login(staff_user)
    services.submit(user=user, wish=Wish(prompt="x"))
    assert "no backlog" in text(client.get("/staff/"))
    Dream.objects.update(next_try_at=timezone.now() - datetime.timedelta(minutes=2))
    assert "a dream has waited for it for 120" in text(client.get("/staff/"))


def test_the_overview_names_dreams_in_trouble(client, staff_user, user):
    client.force_login(staff_user)
    dream = services.submit(user=user, wish=Wish(prompt="a secret wish"))
    Dream.objects.update(trouble="The GPU server cannot be reached. We try again in 20 s.", tries_in_vain=3)
    page = client.get("/staff/")
    assert "We try again in 20 s." in text(page)
    assert str(dream.uuid)[:8] in text(page)
    assert "a secret wish" not in text(page)


def test_the_overview_asks_the_same_few_questions_however_many_dreams_there_are(
    client, staff_user, user, django_assert_max_num_queries
):
    Dream.objects.bulk_create(
        [ended(user, ago=number * datetime.timedelta(hours=1)) for number in range(500)]
        + [Dream(user=user, prompt="x", seed=1, trouble="The GPU server cannot be reached.") for _ in range(50)]
    )
    client.force_login(staff_user)
    with django_assert_max_num_queries(14):
        assert client.get("/staff/").status_code == 200


def test_a_period_counts_what_ended_in_it(user):
    Dream.objects.bulk_create(
        [
            *[ended(user, took_s=seconds, cost=Decimal("0.5")) for seconds in range(1, 21)],
            *[ended(user, "failed", num_retries=2, redraws=1) for _ in range(5)],
            ended(user, "cancelled"),
            ended(user, "failed", ago=2 * DAY),
        ]
    )
    period = staff_statistics.period(DAY)
    assert (period.done, period.failed, period.cancelled) == (20, 5, 1)
    assert (period.retries, period.redraws) == (10, 5)
    assert period.success_rate == 80
    assert period.average_s == pytest.approx(10.5)
    assert period.p95_s == pytest.approx(19), "the nearest rank: the 19th of 20"
    assert period.credits == 10
    assert staff_statistics.credits_spent() == 10


def test_a_period_without_dreams_has_no_rates(db):
    period = staff_statistics.period(DAY)
    assert (period.success_rate, period.average_s, period.p95_s) == (None, None, None)


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Auckland", "America/Los_Angeles"])
def test_days_are_those_of_the_sites_clock(user, zone):
    with timezone.override(zone):
        today = timezone.localdate()
        midnight = timezone.make_aware(datetime.datetime.combine(today, datetime.time.min))
        for created_at in (midnight, midnight - datetime.timedelta(seconds=1), midnight - 2 * DAY):
            Dream.objects.create(user=user, prompt="x", seed=1, created_at=created_at)
        assert [day.all for day in staff_statistics.days(3)] == [1, 1, 1]
        assert [day.all for day in staff_statistics.days(2)] == [1, 1]
        assert staff_statistics.days(2)[-1].date == today


def test_the_chart_is_there_for_those_who_do_not_see_it(client, staff_user, user):
    Dream.objects.bulk_create([ended(user, ago=datetime.timedelta(0)) for _ in range(3)])
    client.force_login(staff_user)
    page = client.get("/staff/").content.decode()
    assert re.search(r'<svg role="img" aria-labelledby="chart-title chart-words"', page)
    assert re.search(r"<title>[^<]+: 3 dreams, 3 done, 0 failed</title>", page)
    assert "style=" not in page


# --- dreams -----------------------------------------------------------------------------------------------------------


def act(client, model, action, *rows, **more):
    data = {"action": action, "_selected_action": [row.pk for row in rows], **more}
    return client.post(reverse(f"admin:{model}_changelist"), data, follow=True)


def test_staff_can_cancel_and_hurry_dreams(client, boss, user):
    client.force_login(boss)
    dream = services.submit(user=user, wish=Wish(prompt="x"))
    over = ended(user)
    over.save()
    later = timezone.now() + datetime.timedelta(minutes=5)
    Dream.objects.filter(pk=dream.pk).update(next_try_at=later)
    page = act(client, "dreams_dream", "try_now", dream, over)
    assert "1 is tried again now" in text(page)
    assert "Nothing was done to 1 that had ended already" in text(page)
    dream.refresh_from_db()
    assert dream.next_try_at <= timezone.now()
    act(client, "dreams_dream", "cancel", dream, over)
    dream.refresh_from_db()
    over.refresh_from_db()
    assert dream.cancel_requested_at is not None
    assert over.cancel_requested_at is None


def test_staff_can_take_a_dream_out_of_the_gallery(client, boss, user):
    client.force_login(boss)
    dream = ended(user, is_public=True)
    dream.save()
    act(client, "dreams_dream", "hide", dream)
    dream.refresh_from_db()
    assert not dream.is_public


def test_staff_read_the_words_of_public_dreams_alone(client, boss, user):
    client.force_login(boss)
    dream = services.submit(user=user, wish=Wish(prompt="a secret wish"))
    page = reverse("admin:dreams_dream_change", args=[dream.pk])
    assert "a secret wish" not in client.get(page).content.decode()
    assert "a secret wish" not in client.get(reverse("admin:dreams_dream_changelist")).content.decode()
    Dream.objects.update(is_public=True)
    assert "a secret wish" in client.get(page).content.decode()


def test_nobody_changes_a_dream_by_hand(client, boss, user):
    client.force_login(boss)
    dream = services.submit(user=user, wish=Wish(prompt="x"))
    for page in ("change", "delete"):
        url = reverse(f"admin:dreams_dream_{page}", args=[dream.pk])
        assert client.post(url, {"status": "done", "post": "yes"}).status_code == 403
    assert client.get(reverse("admin:dreams_dream_add")).status_code == 403


@pytest.mark.parametrize(
    "words", ["ada", "no such thing", "6d2c5ee8", "e9b4b8b8-4e1c-4f08-8f05-1e8b7cb5a0a1", "%", "no's"]
)
def test_dreams_can_be_searched(client, boss, user, words):
    client.force_login(boss)
    Dream.objects.bulk_create([Dream(user=user, prompt="x", seed=1)])
    page = client.get(reverse("admin:dreams_dream_changelist"), {"q": words})
    assert page.status_code == 200
    assert ("1 dream" in text(page)) is (words == "ada")


@pytest.fixture
def crowd(db):
    """500 people with a dream each, and so many of everything else that is listed."""
    kind = get_user_model()
    people = kind.objects.bulk_create(
        kind(username=f"u{n}", name_key=f"u{n}", email=f"{n}@example.org", email_key=f"{n}@example.org")
        for n in range(500)
    )
    Budget.objects.bulk_create(Budget(user=person) for person in people)
    dreams = Dream.objects.bulk_create(ended(person) for person in people)
    LedgerEntry.objects.bulk_create(
        LedgerEntry(user=dream.user, dream=dream, kind="reserve", amount=-1) for dream in dreams
    )
    tags = Tag.objects.bulk_create(Tag(name=f"tag-{n}") for n in range(500))
    links = Dream.tags.through
    links.objects.bulk_create(links(dream=dream, tag=tag) for dream, tag in zip(dreams, tags, strict=True))
    Group.objects.bulk_create(Group(name=f"group {n}") for n in range(500))
    for tried in (AccessAttempt, AccessLog, AccessFailureLog):
        counted = {"failures_since_start": 1} if tried is AccessAttempt else {}
        tried.objects.bulk_create(tried(username=f"u{n}", **counted) for n in range(500))


def test_every_list_asks_few_questions_of_500_dreams(client, boss, crowd, django_assert_max_num_queries):
    client.force_login(boss)
    lists = [route.address() for route in routes() if route.name.endswith("_changelist")]
    assert len(lists) == 8
    for address in lists:
        with django_assert_max_num_queries(12, info=address):
            page = client.get(address).content.decode()
        assert page.count('<th class="field-') in {50, 100}, address  # rows


# --- the ledger -------------------------------------------------------------------------------------------------------


def test_the_ledger_can_be_read_and_nothing_else(client, boss, user):
    client.force_login(boss)
    ledger.balance(user)
    [entry] = LedgerEntry.objects.all()
    change = reverse("admin:dreams_ledgerentry_change", args=[entry.pk])
    assert "starting credits" in text(client.get(change))
    assert client.post(change, {"amount": "1000"}).status_code == 403
    assert client.post(reverse("admin:dreams_ledgerentry_delete", args=[entry.pk]), {"post": "yes"}).status_code == 403
    assert client.post(reverse("admin:dreams_ledgerentry_add"), {"amount": "1000"}).status_code == 403
    act(client, "dreams_ledgerentry", "delete_selected", entry, post="yes")
    assert LedgerEntry.objects.get().amount == 100


# --- people -----------------------------------------------------------------------------------------------------------


def test_people_are_listed_with_what_they_have_left(client, boss, user, other_user):
    client.force_login(boss)
    ledger.grant(user=user, amount=Decimal("23.45"))
    page = text(client.get(reverse("admin:accounts_user_changelist")))
    assert "123.45" in page
    assert "100.00" in page, "what bob, who has never dreamt, will begin with"


def test_credits_are_given_with_a_reason_and_once_however_often_the_form_is_sent(client, boss, user, other_user):
    client.force_login(boss)
    ledger.balance(user)
    ledger.balance(other_user)
    asked = act(client, "accounts_user", "give_credits", user, other_user)
    assert "To: ada , bob" in text(asked)
    submission = re.search(r'name="submission" value="([^"]+)"', asked.content.decode())[1]
    form = {"amount": "25", "note": "a present", "submission": submission}
    page = act(client, "accounts_user", "give_credits", user, other_user, **form)
    assert "25 credits were given to 2 of them" in text(page)
    act(client, "accounts_user", "give_credits", user, other_user, **form)
    assert ledger.balance(user) == ledger.balance(other_user) == 125
    assert LedgerEntry.objects.filter(user=user).first().note == "a present (boss)"


@pytest.mark.parametrize("amount", ["-5", "0", "", "NaN", "1e9", "0.001"])
def test_only_a_sensible_amount_is_given(client, boss, user, amount):
    client.force_login(boss)
    ledger.balance(user)
    form = {"amount": amount, "note": "oh", "submission": str(uuid.uuid4())}
    page = act(client, "accounts_user", "give_credits", user, **form)
    assert "errorlist" in page.content.decode()
    assert ledger.balance(user) == 100


def test_staff_without_the_permission_give_nothing(client, staff_user, user):
    staff_user.user_permissions.set(Permission.objects.filter(codename__in=("view_user", "change_user")))
    client.force_login(staff_user)
    form = {"amount": "25", "note": "a present", "submission": str(uuid.uuid4())}
    act(client, "accounts_user", "give_credits", user, **form)
    assert ledger.balance(user) == 100


def test_nobody_deletes_a_person(client, boss, user):
    client.force_login(boss)
    assert client.post(reverse("admin:accounts_user_delete", args=[user.pk]), {"post": "yes"}).status_code == 403


def test_a_person_is_added_with_an_address(client, boss):
    client.force_login(boss)
    form = {
        "username": "new",
        "email": "new@example.org",
        "usable_password": "true",
        "password1": "a long walk by the sea",
        "password2": "a long walk by the sea",
    }
    client.post(reverse("admin:accounts_user_add"), form)
    assert get_user_model().objects.get(username="new").email == "new@example.org"
    page = client.post(reverse("admin:accounts_user_add"), form | {"username": "newer", "email": "NEW@example.org"})
    assert "Another account has this address" in text(page)


def test_staff_sign_in_where_everybody_does(client, user):
    response = client.get("/admin/", follow=True)
    assert response.redirect_chain[-1][0] == "/accounts/sign-in/?next=/admin/"
    client.force_login(user)
    assert client.get("/admin/", follow=True).status_code == 404


def test_the_admin_writes_24_hours_and_has_its_icon(client, staff_user):
    staff_user.is_superuser = True
    staff_user.last_login = staff_user.date_joined = timezone.now().replace(hour=15, minute=4)
    staff_user.save()
    client.force_login(staff_user)
    type(staff_user).objects.update(date_joined=staff_user.date_joined)
    page = client.get(reverse("admin:accounts_user_changelist")).content.decode()
    assert ", 15:04" in page
    assert not re.search(r"\d [ap]\.m\.", page)
    assert re.search(r'<link rel="icon"[^>]*icon\.svg', page)
