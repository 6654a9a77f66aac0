"""`doctor` names the engines elsewhere: address, device, class, model, places and state, and why one does not draw."""

from __future__ import annotations

from server.cli.doctor.engines import look_at_engines
from server.config import Settings
from server.worker.fake_executor import FakeExecutor
from server.worker.fake_pictures import fake_info
from tests.processes import free_port
from tests.server.test_engine_class import elsewhere


def settings(**wishes: object) -> Settings:
    return Settings(_env_file=None, engine_token="t" * 32, **wishes)


def test_an_engine_that_draws_is_named_with_all_that_is_known_of_it():
    with elsewhere(FakeExecutor()) as engine:
        url = engine._address.url
        [finding] = look_at_engines(settings(engines=url))
    assert finding.level == "ok"
    assert finding.found == f"{url}: ready, fake, no device, 2 places, class {fake_info('fake', 2).engine_class}"


def test_one_behind_a_balancer_is_looked_at_too():
    with elsewhere(FakeExecutor()) as engine:
        url = engine._address.url
        [finding] = look_at_engines(settings(engine_pool_url=url))
    assert finding.level == "ok"
    assert finding.found.startswith(f"{url}: ready, fake, no device")


def test_an_engine_that_cannot_be_reached_is_a_warning_with_a_remedy():
    url = f"http://127.0.0.1:{free_port()}"
    [finding] = look_at_engines(settings(engines=url))
    assert finding.level == "warn"
    assert "cannot be reached" in finding.found
    assert finding.remedy is not None


def test_without_engines_elsewhere_there_is_nothing_to_say():
    assert list(look_at_engines(settings())) == []
