"""What the client can ask for, against a real server."""

from __future__ import annotations

import asyncio
import inspect
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal

import pytest
from semantic_bit_client import (
    AsyncClient,
    AsyncJob,
    Client,
    Job,
    JobCounts,
)

from tests.client.client_values import PNG, SMALL


def test_a_picture_says_how_it_came_about(server, client):
    picture = client.generate("a cat", seed=7, user="ada", **SMALL)
    assert picture.bytes.startswith(PNG)
    assert (picture.seed, picture.model, picture.media_type) == (7, "fake", "image/png")
    assert picture.work_units == pytest.approx(2 * 64 * 64 / (28 * 512 * 512), rel=1e-2)
    assert picture.timings.total_s >= picture.timings.denoise_s >= 0
    assert client.generate("a cat", seed=7, **SMALL).bytes == picture.bytes
    cost = client.job(picture.job_id).state.cost
    assert (cost.work_units, cost.price) == (picture.work_units, Decimal(0))
    assert client.job(picture.job_id).state.user == "ada"
    assert repr(picture).count("PNG") == 0, "a log line is no place for the file"


def test_every_wish_is_handed_on(server, client):
    wish = {
        "negative_prompt": "snow", "num_inference_steps": 3, "guidance_scale": 4, "height": 64, "width": 128,
        "seed": 9, "sampler": "ddim", "noise_schedule": "default", "eta": 0.5, "output_format": "webp", "user": "ada",
    }  # fmt: skip
    job = client.submit("a cat", num_images=2, **wish)
    params = job.state.params
    assert {name: getattr(params, name) for name in wish.keys() - {"user", "sampler"}} == {
        name: value for name, value in wish.items() if name not in {"user", "sampler"}
    }
    assert (params.sampler, params.num_images, job.state.user) == ("DDIM", 2, "ada")
    job.wait()
    first, second = job.images()
    assert (first.seed, second.seed, first.media_type) == (9, 10, "image/webp")
    assert first.work_units + second.work_units == pytest.approx(job.state.work_units)


def test_an_argument_that_there_is_not_is_refused_before_anything_is_sent(client):
    with pytest.raises(TypeError, match="'steps'"):
        client.submit("a cat", steps=3)
    with pytest.raises(TypeError, match="'num_images'"):
        client.generate("a cat", num_images=2)


def test_a_job_is_found_again_by_its_id(server, client):
    job = client.submit("a cat", **SMALL)
    with Client(server.url) as other:
        found = other.job(job.id)
        found.wait()
        assert found.images()[0].bytes == (job.wait(), job.images())[1][0].bytes


@pytest.mark.parametrize("job_id", ["", "../queue", "a b", "x" * 65, "a/b", "a?b"])
def test_what_cannot_be_a_jobs_id_is_never_sent(client, job_id):
    with pytest.raises(ValueError, match="is not a job id"):
        client.job(job_id)


def test_the_same_key_is_the_same_picture(server, client):
    before = len(server.executor.started)
    first = client.generate("a cat", idempotency_key="dream-1", **SMALL)
    again = client.generate("a cat", idempotency_key="dream-1", **SMALL)
    assert first.bytes == again.bytes
    assert first.seed == again.seed
    assert len(server.executor.started) == before + 1


def test_health_queue_and_samplers_are_told_as_records(client):
    health, queue = client.health(), client.queue(num_inference_steps=2, height=64, width=64)
    assert (health.status, health.model_loaded, health.generator_info.model_id) == ("healthy", True, "fake")
    assert (queue.waiting, queue.accepting, queue.max_waiting) == (0, True, 100)
    [model] = client.models()
    assert (model.id, model.is_default, model.width, model.size_multiple) == ("fake", True, 512, 8)
    samplers = {sampler.name: sampler for sampler in client.samplers(num_inference_steps=10)}
    assert [name for name, sampler in samplers.items() if sampler.is_default] == ["DPMSolver++"]
    assert samplers["Heun"].model_calls == 19


async def test_both_clients_are_told_what_was_drawn_and_what_it_cost(serve):
    url = serve(price_per_work_unit=Decimal("0.02")).url
    with Client(url) as client:
        assert (client.usage().days, client.usage().total.price) == ((), Decimal(0))
        one, two = client.submit("a cat", **SMALL), client.submit("a cat", num_images=2)
        costs = [job.wait().cost for job in (one, two)]
        usage = client.usage()
    async with AsyncClient(url) as client:
        assert await client.usage() == usage
    assert usage.last_day - usage.first_day == timedelta(days=29)
    assert usage.first_day < usage.days[-1].day <= usage.last_day
    assert usage.total.jobs == JobCounts(done=2, failed=0, cancelled=0, dead=0)
    assert usage.total.images == sum(day.images for day in usage.days) == 3
    assert usage.total.price == sum(day.price for day in usage.days) == sum(cost.price for cost in costs)
    assert usage.total.price >= Decimal("0.04")
    assert usage.total.work_units == pytest.approx(sum(cost.work_units for cost in costs), abs=1e-6)
    assert usage.total.engine_s == pytest.approx(sum(cost.engine_s for cost in costs), abs=2e-3)


def test_threads_share_a_client(server, client):
    def draw(seed):
        return client.generate("a cat", seed=seed, **SMALL)

    with ThreadPoolExecutor(8) as threads:
        assert [picture.seed for picture in threads.map(draw, range(24))] == list(range(24))


async def test_tasks_share_a_client(server):
    async with AsyncClient(server.url) as client:
        pictures = await asyncio.gather(*(client.generate("a cat", seed=seed, **SMALL) for seed in range(24)))
        assert [picture.seed for picture in pictures] == list(range(24))


async def test_whoever_awaits_can_do_all_that_whoever_waits_can(server):
    async with AsyncClient(server.url) as client:
        job = await client.submit("a cat", num_images=2, **SMALL)
        events = [event async for event in job.events()]
        assert events[-1].status == "done"
        assert [picture.bytes[:8] for picture in await job.images()] == [PNG, PNG]
        assert (await job.cancel()).status == "done"
        assert (await (await client.job(job.id)).wait()).status == "done"
        assert (await client.health()).status == "healthy"
        assert (await client.queue()).accepting
        assert len(await client.samplers()) > 20


@pytest.mark.parametrize(("waits", "awaits"), [(Client, AsyncClient), (Job, AsyncJob)])
def test_both_clients_have_the_same_methods_with_the_same_arguments(waits, awaits):
    def methods(kind):
        return {
            name: [str(parameter).replace("Async", "") for parameter in inspect.signature(method).parameters.values()]
            for name, method in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_")
        }

    assert methods(waits) == methods(awaits)
    for name in methods(waits):
        assert getattr(waits, name).__doc__ == getattr(awaits, name).__doc__
