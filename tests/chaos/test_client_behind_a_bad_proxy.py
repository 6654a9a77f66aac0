"""The client library behind a proxy that misbehaves, for long: no drawing is lost, and none is drawn twice."""

from __future__ import annotations

import time

from semantic_bit_client import ServerFault

from server.worker.fake_executor import FakeExecutor
from tests.client.drawings import draw_many


def test_each_drawing_is_drawn_once_and_returned_or_failed_with_a_reason(serve, rounds, report):
    number = rounds(50, 1000)
    began = time.monotonic()
    running = serve(FakeExecutor(step_s=0.002), max_queued_requests=2 * number)
    outcome = draw_many(running, number, share=0.3, seed=2, at_once=32)
    faults, drawn = outcome.faults.total(), len(running.executor.started)
    report("client: drawings behind a bad proxy", f"{number} with {faults} faults in {time.monotonic() - began:.0f} s")
    report(
        "client: returned, failed with a reason", f"{len(outcome.pictures)}, {len(outcome.errors)}", f"{number} in all"
    )
    report("client: drawn more than once", drawn - len({job.params.prompt for job in running.executor.started}), "0")
    assert {type(error) for error in outcome.errors.values()} <= {ServerFault}
    assert len(outcome.errors) <= outcome.faults["500"]
