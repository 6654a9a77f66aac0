"""A job's event stream while there is nothing to tell: what keeps it open?"""

from __future__ import annotations

import asyncio
import json

import httpx2

from server.worker.fake_executor import FakeExecutor

KEEP_ALIVE_S = 0.2
KEEP_ALIVE = ": keep-alive\n\n"


async def test_a_stream_without_news_is_kept_alive_by_comments_and_goes_on_to_the_end(serve, monkeypatch):
    """
    Proxies close what is silent. A comment is no message: whoever reads events does not see it.
    """
    monkeypatch.setattr("server.routes.jobs._KEEP_ALIVE_S", KEEP_ALIVE_S)
    running = serve(FakeExecutor(step_s=4 * KEEP_ALIVE_S))  # longer than a stream may be silent
    async with httpx2.AsyncClient(base_url=running.url, timeout=10) as client, asyncio.timeout(10):
        wish = {"prompt": "a cat", "num_inference_steps": 2}
        job = (await client.post("/v1/jobs", json=wish)).json()
        async with client.stream("GET", job["links"]["events"]) as stream:
            whole = "".join([text async for text in stream.aiter_text()])
    messages = [message + "\n\n" for message in whole.split("\n\n")[:-1]]
    assert whole == "".join(messages), "no message was cut off"
    comments = [message for message in messages if message.startswith(":")]
    assert set(comments) == {KEEP_ALIVE}
    # Two steps, each four times as long as the interval: three or four in each, fewer on a machine that is late.
    assert len(comments) >= 4
    snapshots = [message for message in messages if not message.startswith(":")]
    assert all(message.startswith("id: ") for message in snapshots)
    last = json.loads(snapshots[-1].partition("data: ")[2])
    assert (last["status"], messages[-1]) == ("done", snapshots[-1])
