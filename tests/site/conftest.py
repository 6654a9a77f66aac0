"""People, and a real GPU server with the fake engine, for the tests of the site."""

from __future__ import annotations

from decimal import Decimal

import pytest
from django.contrib.auth import get_user_model

from newdreamflow.dreams.gpu_server import close_clients
from server.worker.fake_executor import FakeExecutor


@pytest.fixture
def user(db):
    return get_user_model().objects.create_user("ada", "ada@example.org", "correct horse")


@pytest.fixture
def other_user(db):
    return get_user_model().objects.create_user("bob", "bob@example.org", "battery staple")


@pytest.fixture
def staff_user(db):
    return get_user_model().objects.create_user("eve", "eve@example.org", "very secret indeed", is_staff=True)


@pytest.fixture
def painter():
    """The fake engine of `gpu_server`: what it was given, and how quick it is."""
    return FakeExecutor(step_s=0.001)


@pytest.fixture
def gpu_server(serve, painter, settings):
    """A real GPU server, in a thread, that the site is told of."""
    server = serve(painter)
    settings.GPU_SERVER_URL = server.url
    return server


@pytest.fixture(autouse=True)
def closed_clients():
    yield
    close_clients()


@pytest.fixture(autouse=True)
def prices(settings):
    settings.DREAMS_PRICE_PER_WORK_UNIT = Decimal("2.00")
    settings.DREAMS_STARTING_BUDGET = Decimal("100.00")


@pytest.fixture
def with_mail(settings):
    settings.ACCOUNTS_CONFIRM_ADDRESS = True


@pytest.fixture
def signed_in(client, user):
    client.force_login(user)
    return client
