"""Behind a proxy that misbehaves: each drawing is drawn once, and returned or failed with a reason."""

from __future__ import annotations

import time

import httpx2
import pytest
from semantic_bit_client import ServerFault

from server.worker.fake_executor import FakeExecutor
from tests.client.drawings import draw_many
from tests.client.proxy import KINDS, Fault, proxied


def test_100_drawings_are_each_drawn_once_and_returned_or_failed_with_a_reason(serve):
    outcome = draw_many(serve(FakeExecutor(step_s=0.002), max_queued_requests=1000), 100, share=0.2, seed=1)
    assert outcome.faults.keys() == set(KINDS), "every kind of trouble came up"
    # A 500 is a mistake that trying again would repeat; of all the others none may cost a picture.
    assert {type(error) for error in outcome.errors.values()} <= {ServerFault}
    assert len(outcome.errors) <= outcome.faults["500"]
    assert len(outcome.pictures) >= 80


# --- the proxy itself -------------------------------------------------------------------------------------------------


def test_the_proxy_keeps_to_its_script_and_notes_what_it_did(server):
    with proxied(server.url, [Fault("429", retry_after_s=3), None]) as proxy:
        refused, passed = httpx2.get(f"{proxy.url}/livez"), httpx2.get(f"{proxy.url}/livez")
        after = httpx2.get(f"{proxy.url}/v1/queue?width=64")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "3")
    assert passed.json() == {"alive": True}
    assert after.status_code == 200
    assert [(seen.path, seen.is_passed_on) for seen in proxy.seen] == [
        ("/livez", False),
        ("/livez", True),
        ("/v1/queue?width=64", True),
    ]


@pytest.mark.parametrize(
    ("kind", "error", "is_passed_on"),
    [
        ("reset", httpx2.ReadError, False), ("deaf", httpx2.ReadError, True),
        ("garbage", httpx2.RemoteProtocolError, False), ("half", httpx2.RemoteProtocolError, True),
        ("stall", httpx2.ReadTimeout, True), ("late", httpx2.ReadTimeout, True),
    ],
)  # fmt: skip
def test_the_proxy_breaks_what_it_says_it_breaks(server, kind, error, is_passed_on):
    with proxied(server.url, [Fault(kind)]) as proxy:
        with pytest.raises(error):
            httpx2.get(f"{proxy.url}/health", timeout=0.3)
        assert [seen.is_passed_on for seen in proxy.seen] == [is_passed_on]


def test_a_slow_close_and_a_page_come_whole(server):
    with proxied(server.url, [Fault("slow close", 2), Fault("page")]) as proxy:
        began = time.monotonic()
        assert httpx2.get(f"{proxy.url}/livez").json() == {"alive": True}
        assert time.monotonic() - began < 2
        assert httpx2.get(f"{proxy.url}/livez").headers["content-type"] == "text/html"
