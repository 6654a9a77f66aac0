"""A GPU that does not answer: the gateway does, says so, and replaces the engine."""

from __future__ import annotations

import os
import signal
import time

from server.worker.fake_engine import HANG
from tests.chaos.gateway import gateway, needs_proc, until

WATCHDOG_S = 2.0
MOST_UNTIL_UNREADY_S = 3.0


@needs_proc
def test_a_stopped_engine_is_noticed_and_replaced_and_its_job_is_drawn(tmp_path, report):
    with gateway(tmp_path, command=None, MODEL_ID="fake-engine:50", WATCHDOG_MIN=str(WATCHDOG_S)) as server:
        job = server.submit(num_inference_steps=20)
        until(lambda: server.job(job["id"])["step"] >= 1, 5, "drawing")
        [engine] = server.engine_ids
        os.kill(engine, signal.SIGSTOP)
        began = time.monotonic()
        slowest_s = 0.0

        def is_unready() -> bool:
            nonlocal slowest_s
            asked = time.monotonic()
            assert server.get("/livez").status_code == 200
            slowest_s = max(slowest_s, time.monotonic() - asked)
            return not server.is_ready()

        until(is_unready, 10, "unready")
        unready_s = time.monotonic() - began
        until(lambda: not is_unready(), 10, "ready again")
        ready_s = time.monotonic() - began
        assert engine not in server.engine_ids
        done = server.ended(job["id"])
        assert (done["status"], done["attempt"], len(done["images"])) == ("done", 2, 1)
    report("SIGSTOP of the engine: /readyz is 503 after", f"{unready_s:.2f} s", f"<= {MOST_UNTIL_UNREADY_S:g} s")
    report("SIGSTOP of the engine: ready again after", f"{ready_s:.2f} s", "")
    report("SIGSTOP of the engine: slowest /livez", f"{1000 * slowest_s:.0f} ms", "answers throughout")
    assert unready_s <= MOST_UNTIL_UNREADY_S


@needs_proc
def test_a_job_that_hangs_every_engine_is_given_up(tmp_path, report):
    with gateway(tmp_path, command=None, MODEL_ID="fake-engine:5", WATCHDOG_MIN="0.5") as server:
        hanging, other = server.submit(prompt=HANG), server.submit()
        dead = server.ended(hanging["id"], 20)
        assert (dead["status"], dead["attempt"], dead["error"]["code"]) == ("dead", 3, "job_dead")
        assert server.ended(other["id"])["status"] == "done"
    report("job that hangs its engines", f"{dead['status']} after {dead['attempt']} attempts", "3")
