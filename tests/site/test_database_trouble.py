"""What the site does while its database cannot be written or asked: pages that read need no lock, loops go on."""

from __future__ import annotations

import ast
import threading
import time

import pytest
from django.db import InterfaceError, connection
from django.test.utils import CaptureQueriesContext

from newdreamflow.dreams import ledger, services
from newdreamflow.dreams.models import Dream
from newdreamflow.dreams.worker import DreamWorker
from tests.processes import REPOSITORY
from tests.site.dreaming import done

pytestmark = pytest.mark.django_db(transaction=True)

PAGES = ("/", "/dream/", "/mine/", "/costs/", "/costs/?format=csv", "/accounts/", "/accounts/password/")


def test_reading_what_is_left_takes_no_write_lock(user):
    ledger.balance(user)  # the first time ever, a budget is written
    with CaptureQueriesContext(
        connection,
    ) as asked:
        ledger.balance(user)
    assert [query["sql"] for query in asked if not query["sql"].startswith("SELECT")] == []


@pytest.mark.parametrize("page", PAGES)
def test_a_page_that_is_only_looked_at_writes_nothing(page, client, user):
    """The siblings: every page that a signed-in user reads."""
    dream = done(user)
    client.force_login(user)
    for path in (page, f"/dream/{dream.uuid}/"):
        assert client.get(path).status_code == 200  # the first time, a budget may be written
        with CaptureQueriesContext(connection) as asked:
            assert client.get(path).status_code == 200
        assert [query["sql"] for query in asked if not query["sql"].startswith("SELECT")] == [], path


def test_the_worker_goes_on_after_an_interface_error(user, gpu_server, caplog):
    """`InterfaceError` is no `DatabaseError`, but its sibling: a connection that was closed under us."""
    dream = services.submit(user=user, wish=services.Wish(prompt="a cat", width=64, height=64, num_inference_steps=2))
    worker = DreamWorker(1)
    failures = iter([InterfaceError("connection already closed")])

    def failing_once(execute, *arguments):
        for failure in failures:
            raise failure
        return execute(*arguments)

    def stop_when_done():
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not Dream.objects.get(pk=dream.pk).is_finished:
            time.sleep(0.05)
        worker.stop()
        connection.close()

    stopper = threading.Thread(target=stop_when_done)
    stopper.start()
    with connection.execute_wrapper(failing_once):
        worker.run()
    stopper.join()
    dream.refresh_from_db()
    assert dream.status == "done"
    assert "the database cannot be read: connection already closed" in caplog.text


def test_every_handler_of_database_errors_catches_their_common_base():
    """`django.db.Error`; or a kind below it that is meant, such as `IntegrityError`. Never `DatabaseError` alone."""
    caught = [
        f"{path.relative_to(REPOSITORY)}:{handler.lineno}"
        for path in (REPOSITORY / "newdreamflow").rglob("*.py")
        for handler in ast.walk(ast.parse(path.read_text()))
        if isinstance(handler, ast.ExceptHandler) and handler.type and "DatabaseError" in ast.unparse(handler.type)
    ]
    assert caught == []
