"""Who is drawn when, and what everybody else is told: capacity, order, time limits, hang-ups, the end."""

from __future__ import annotations

import asyncio
import time

import httpx2
import msgspec
import pytest

from engine.errors import DoesNotFitError, EngineError
from server.executors.messages import LoadFailed, Loading, Ready
from server.worker.fake_executor import FakeExecutor

PROMPT = {"prompt": "a cat", "num_inference_steps": 10}


def post(url, client, **wish):
    return client.post(f"{url}/generate", json=PROMPT | wish)


async def until(condition, timeout_s=5.0):
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


async def until_waiting(running, client, num_requests):
    """Until so many requests wait: what is sent next comes after them, however slow this machine is."""
    async with asyncio.timeout(5):
        while (await client.get(f"{running.url}/health")).json()["queue"]["requests_waiting"] != num_requests:
            await asyncio.sleep(0.005)


async def posted_in_order(running, client, wishes):
    """Send requests to an engine that is busy, each when the one before has its place; one is with the engine."""
    tasks = []
    for index, wish in enumerate(wishes):
        tasks.append(asyncio.create_task(post(running.url, client, **wish)))
        await (until_waiting(running, client, index) if index else until(lambda: running.executor.images_in_flight))
    return tasks


@pytest.fixture
async def client():
    async with httpx2.AsyncClient(timeout=20, limits=httpx2.Limits(max_connections=None)) as client:
        yield client


async def test_no_more_pictures_are_with_the_engine_than_it_takes(serve, client):
    running = serve(FakeExecutor(step_s=0.002, max_images_in_flight=3))
    answers = await asyncio.gather(*(post(running.url, client, num_images=1 + i % 3) for i in range(12)))
    assert {answer.status_code for answer in answers} == {200}
    assert running.executor.most_images_at_once == 3


async def test_a_request_larger_than_the_engine_runs_alone(serve, client):
    running = serve(FakeExecutor(step_s=0.002, max_images_in_flight=2))
    answers = await asyncio.gather(*(post(running.url, client, num_images=8) for _ in range(2)))
    assert {answer.status_code for answer in answers} == {200}
    assert running.executor.most_images_at_once == 8


async def test_requests_are_drawn_in_the_order_they_came(serve, client):
    running = serve(FakeExecutor(max_images_in_flight=1))
    running.call(running.executor.hang)
    waiting = await posted_in_order(running, client, [{"seed": seed} for seed in range(6)])
    running.call(running.executor.wake)
    await asyncio.gather(*waiting)
    assert [job.params.seed for job in running.executor.started] == list(range(6))


async def test_a_small_request_does_not_overtake_a_large_one(serve, client):
    running = serve(FakeExecutor(max_images_in_flight=2))
    running.call(running.executor.hang)
    wishes = [{"seed": seed, "num_images": num_images} for seed, num_images in enumerate((1, 2, 1))]
    waiting = await posted_in_order(running, client, wishes)
    running.call(running.executor.wake)
    await asyncio.gather(*waiting)
    assert [job.params.seed for job in running.executor.started] == [0, 1, 2]


async def test_one_too_many_is_503_with_a_retry_after_that_is_true(serve, client):
    running = serve(FakeExecutor(step_s=0.1, max_images_in_flight=1), max_queued_requests=2)
    await post(running.url, client, num_inference_steps=2)  # teaches the pace
    busy = await posted_in_order(running, client, [{"num_inference_steps": 12}] * 3)
    refused = await post(running.url, client)
    assert refused.status_code == 503
    problem = refused.json()
    assert problem["code"] == "queue_full"
    assert refused.headers["retry-after"] == str(problem["retry_after"])
    # 12 steps of 0.1 s are ahead of the next free place: a little less than 1.2 s, and seconds are whole.
    assert problem["retry_after"] in {1, 2}
    await asyncio.sleep(problem["retry_after"])
    accepted = asyncio.create_task(post(running.url, client, num_inference_steps=1))
    assert {answer.status_code for answer in await asyncio.gather(*busy, accepted)} == {200}


async def test_before_anything_was_drawn_retry_after_is_when_the_oldest_runs_out_of_time(serve, client):
    running = serve(FakeExecutor(load_s=60), max_queued_requests=1, request_timeout=1.5)
    waiting = asyncio.create_task(post(running.url, client))
    await until_waiting(running, client, 1)
    refused = await post(running.url, client)
    assert refused.json()["retry_after"] in {1, 2}
    assert (await waiting).status_code == 504


async def test_a_flood_gets_as_many_answers_as_there_are_places(serve, client):
    running = serve(FakeExecutor(max_images_in_flight=2), max_queued_requests=10)
    running.call(running.executor.hang)
    flood = [asyncio.create_task(post(running.url, client)) for _ in range(100)]
    await until(lambda: sum(task.done() for task in flood) == 88, timeout_s=10)
    running.call(running.executor.wake)
    answers = await asyncio.gather(*flood)
    codes = [answer.status_code for answer in answers]
    assert codes.count(200) == 12
    assert codes.count(503) == 88
    assert all("retry-after" in answer.headers for answer in answers if answer.status_code == 503)


async def test_time_spent_waiting_counts_towards_the_time_limit(serve, client):
    running = serve(FakeExecutor(step_s=0.05, max_images_in_flight=1), request_timeout=1.0)
    began = time.monotonic()
    answers = await asyncio.gather(*(post(running.url, client, num_inference_steps=150) for _ in range(3)))
    assert 0.9 <= time.monotonic() - began < 2.0
    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(504, "request_timeout")}
    # The engine was told: nothing goes on for callers who have their answer.
    await until(lambda: running.executor.images_in_flight == 0)
    steps = running.executor.steps_taken
    await asyncio.sleep(0.15)
    assert running.executor.steps_taken == steps


async def test_hanging_up_cancels_within_a_step(serve, client):
    running = serve(FakeExecutor(step_s=0.05, max_images_in_flight=1))
    with pytest.raises(httpx2.ReadTimeout):
        await client.post(f"{running.url}/generate", json=PROMPT | {"num_inference_steps": 100}, timeout=0.3)
    await until(lambda: running.executor.images_in_flight == 0, timeout_s=0.5)
    assert running.executor.steps_taken < 15
    assert (await post(running.url, client)).status_code == 200


async def test_hanging_up_while_waiting_frees_the_place(serve, client):
    running = serve(FakeExecutor(step_s=0.05, max_images_in_flight=1), max_queued_requests=1)
    first = asyncio.create_task(post(running.url, client))
    await until(lambda: running.executor.images_in_flight == 1)
    with pytest.raises(httpx2.ReadTimeout):
        await client.post(f"{running.url}/generate", json=PROMPT, timeout=0.1)
    await until_waiting(running, client, 0)
    second = await post(running.url, client)
    assert (second.status_code, (await first).status_code) == (200, 200)
    assert len(running.executor.started) == 2


async def test_requests_wait_while_the_model_loads(serve, client):
    running = serve(FakeExecutor(load_s=2))
    running.call(running.executor.say, Loading("load"))
    health = await client.get(f"{running.url}/health")
    assert (health.status_code, health.json()["status"]) == (200, "loading")
    assert health.json()["reason"] == "the model is being loaded; now: reading the model's files"
    answer = await post(running.url, client)
    assert answer.status_code == 200
    queue_ms = float(answer.headers["server-timing"].split(",")[0].removeprefix("queue;dur="))
    assert 100 < queue_ms < 3000


async def test_a_model_that_proves_unable_to_draw_after_it_was_ready_has_failed(serve, client):
    """
    At warm-up, when nobody waits; whoever comes in that moment is told too.
    """
    running = serve(FakeExecutor(step_s=0.05))
    waiting = asyncio.create_task(post(running.url, client))
    await until(lambda: running.executor.images_in_flight == 1)
    running.call(running.executor.say, LoadFailed("the decoder is broken"))
    running.call(running.executor._engine_has_ended, "the engine process ended while drawing")
    for answer in (await waiting, await post(running.url, client)):
        assert (answer.status_code, answer.json()["code"]) == (503, "engine_failed")
        assert "the decoder is broken" in answer.json()["detail"]
    health = await client.get(f"{running.url}/health")
    assert (health.status_code, health.json()["reason"]) == (503, "the decoder is broken")


async def test_a_model_that_fails_to_load_answers_those_who_wait_and_those_who_come(serve, client):
    running = serve(FakeExecutor(load_s=0.2, load_failure="the weights are damaged"))
    answers = [await post(running.url, client), await post(running.url, client)]
    for answer in answers:
        assert answer.status_code == 503
        assert answer.json()["code"] == "engine_failed"
        assert "the weights are damaged" in answer.json()["detail"]
    health = await client.get(f"{running.url}/health")
    assert (health.status_code, health.json()["status"]) == (503, "failed")


async def test_an_engine_that_dies_for_good_is_told_to_those_who_wait(serve, client):
    running = serve(FakeExecutor(step_s=0.05, max_images_in_flight=1))
    callers = [asyncio.create_task(post(running.url, client)) for _ in range(2)]
    await until(lambda: running.executor.images_in_flight == 1)
    running.call(running.executor.die)
    answers = await asyncio.gather(*callers)
    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(503, "engine_failed")}


async def test_a_job_whose_engine_is_replaced_is_tried_again_and_nobody_notices(serve, client):
    running = serve(FakeExecutor(step_s=0.05, max_images_in_flight=2))
    callers = [asyncio.create_task(post(running.url, client, seed=seed)) for seed in range(3)]
    await until(lambda: running.executor.images_in_flight == 2)
    running.call(running.executor.restart)
    assert {answer.status_code for answer in await asyncio.gather(*callers)} == {200}
    begun = [job.params.seed for job in running.executor.started]
    assert (len(begun), set(begun)) == (5, {0, 1, 2})


async def test_a_job_that_loses_its_engine_three_times_is_dead_and_its_neighbours_are_done(serve, client):
    running = serve(FakeExecutor(step_s=0.05, max_images_in_flight=2))
    poison = asyncio.create_task(post(running.url, client, seed=666))
    neighbours = [asyncio.create_task(post(running.url, client, seed=seed)) for seed in range(4)]

    def attempts():
        return [job.params.seed for job in running.executor.started].count(666)

    for number in (1, 2, 3):
        await until(lambda number=number: attempts() == number)
        await asyncio.sleep(0.02)
        running.call(running.executor.restart)
    answer = await poison
    assert (answer.status_code, answer.json()["code"]) == (500, "job_dead")
    assert {neighbour.status_code for neighbour in await asyncio.gather(*neighbours)} == {200}


async def test_one_requests_failure_leaves_its_neighbours_alone(serve, client):
    running = serve(FakeExecutor(step_s=0.01, max_images_in_flight=4))
    running.executor.fail_next(DoesNotFitError("needs 40 GiB, the device has 12"))
    answers = await asyncio.gather(*(post(running.url, client) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 422]


async def test_an_engine_error_is_told_and_nothing_else_breaks(serve, client):
    running = serve()
    running.executor.fail_next(EngineError("no luck today"))
    answer = await post(running.url, client)
    assert (answer.status_code, answer.json()["code"]) == (500, "engine_error")
    assert (await post(running.url, client)).status_code == 200


async def test_a_hung_engine_leaves_health_answering_and_is_told(serve, client):
    running = serve(FakeExecutor(step_s=0.01, allowed_silence_s=0.5), request_timeout=1.5)
    running.call(running.executor.hang)
    drawing = asyncio.create_task(post(running.url, client))
    await asyncio.sleep(0.8)
    health, ready, alive = [await client.get(f"{running.url}{path}") for path in ("/health", "/readyz", "/livez")]
    assert (health.status_code, health.json()["status"]) == (200, "degraded")
    assert ready.status_code == 503
    assert "has not responded" in ready.json()["reason"]
    assert alive.status_code == 200
    assert (await drawing).status_code == 504
    running.call(running.executor.wake)
    assert (await client.get(f"{running.url}/readyz")).status_code == 200
    assert (await post(running.url, client)).status_code == 200


async def test_what_the_operator_should_know_of_the_engine_shows_and_its_pictures_are_served(serve, client):
    """
    An engine whose model could not be converted draws, by torch: healthy, with the reason beside it and no folders.
    """
    running = serve(FakeExecutor())
    warned = msgspec.structs.replace(running.executor.info, warning="/srv/a/unet cannot be converted")
    running.call(lambda: running.executor._receive(Ready(warned)))
    told = (await client.get(f"{running.url}/health")).json()
    assert (told["status"], told["engine"]["warning"]) == ("healthy", "unet cannot be converted")


async def test_shutting_down_tells_everyone_at_once(serve, client):
    running = serve(FakeExecutor(step_s=0.5, max_images_in_flight=1))
    callers = [asyncio.create_task(post(running.url, client)) for _ in range(4)]
    await until(lambda: running.executor.images_in_flight == 1)
    await asyncio.sleep(0.1)
    began = time.monotonic()
    await asyncio.to_thread(running.stop)
    answers = await asyncio.gather(*callers)
    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(503, "draining")}
    assert time.monotonic() - began < 2
    assert running.executor.images_in_flight == 0
    assert running.executor.state == "stopped"


async def test_the_cost_is_learned_and_told(serve, client):
    running = serve(FakeExecutor(step_s=0.01, max_images_in_flight=1))
    assert (await client.get(f"{running.url}/health")).json()["queue"]["eta_s"] is None
    await post(running.url, client, num_inference_steps=28)
    eta_s = (await client.get(f"{running.url}/health")).json()["queue"]["eta_s"]
    # 28 steps; sleeping overshoots on a busy machine, never undershoots.
    assert 0.28 <= eta_s < 3.0
