"""`GET /metrics`: it tells what happened, in words that Prometheus takes and docs/telemetry.md explains."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import httpx2
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families

from engine.errors import EngineError
from server.executors.messages import DeviceMemory, OutOfMemory, Pong, WorkDone
from server.metrics import Metrics
from server.store.record import TERMINAL
from server.worker.fake_executor import FakeExecutor

PAGE = (Path(__file__).parents[2] / "docs" / "telemetry.md").read_text()
DOCUMENTED = {
    name: (kind, set(re.findall(r"`(\w+)`", labels)))
    for name, kind, labels in re.findall(r"^\| `(semantic_bit_\w+)` \| (\w+) \|([^|]*)\|", PAGE, flags=re.MULTILINE)
}
WISH = {"prompt": "a cat", "num_inference_steps": 3}


def scraped(url: str, **headers: str) -> httpx2.Response:
    answer = httpx2.get(f"{url}/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


def samples(url: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_families(scraped(url).text)
        for sample in family.samples
    }


def value(url: str, name: str, **labels: str) -> float | None:
    return samples(url).get((f"semantic_bit_{name}", frozenset(labels.items())))


def draw(url: str, **wishes) -> httpx2.Response:
    return httpx2.post(f"{url}/generate", json=WISH | wishes)


def test_every_metric_is_documented_with_its_type_and_labels_and_nothing_else_is(serve):
    executor = FakeExecutor()
    executor.say(OutOfMemory("step"))
    executor.say(Pong(1, DeviceMemory(1000, 400, 500, 300)))
    url = serve(executor).url
    draw(url)
    draw(url, num_inference_steps=0)
    families = [family for family in text_families(scraped(url).text) if "process_" not in family.name]
    found = {family.name + "_total" * (family.type == "counter"): family for family in families}
    assert DOCUMENTED.keys() == found.keys()
    for name, family in found.items():
        kind, labels = DOCUMENTED[name]
        assert kind == family.type, name
        assert family.samples or name == "semantic_bit_job_failures_total", f"{name} is never told"
        for sample in family.samples:
            assert sample.labels.keys() - {"le"} == labels, name


def test_processes_are_told_as_every_client_does(serve):
    names = {family.name for family in text_families(scraped(serve().url).text)}
    assert {"process_resident_memory_bytes", "process_cpu_seconds", "process_open_fds"} <= names


def test_jobs_and_pictures_are_counted_by_how_they_ended(serve):
    executor = FakeExecutor(step_s=0.01)
    running = serve(executor)
    url = running.url
    assert draw(url, num_images=3).status_code == 200
    running.call(executor.fail_next, EngineError("it broke"))
    assert draw(url).status_code == 500
    job = httpx2.post(f"{url}/v1/jobs", json=WISH | {"num_inference_steps": 100}).json()
    httpx2.post(url + job["links"]["cancel"])
    assert (value(url, "jobs_total", status="done"), value(url, "images_total", status="done")) == (1, 3)
    assert value(url, "jobs_total", status="failed") == value(url, "jobs_total", status="cancelled") == 1
    assert value(url, "jobs_total", status="dead") == 0
    assert value(url, "job_failures_total", code="engine_error") == 1
    assert value(url, "errors_total", code="engine_error") == 1
    assert value(url, "jobs_accepted_total") == 3
    assert value(url, "work_units_total") == pytest.approx(3 * 3 / 28)
    assert value(url, "queue_wait_seconds_count") == 3
    assert value(url, "generation_seconds_count") == 1
    assert 0.03 <= value(url, "generation_seconds_sum") <= 5
    assert value(url, "recent_success_ratio") == 0.5


def test_a_repeat_is_not_accepted_and_not_drawn_again(serve):
    url = serve().url
    for _ in range(3):
        httpx2.post(f"{url}/generate", json=WISH, headers={"Idempotency-Key": "once"})
    assert (value(url, "jobs_accepted_total"), value(url, "jobs_total", status="done")) == (1, 1)


def test_a_dead_job_and_a_lost_engine_are_counted(serve):
    executor = FakeExecutor(step_s=0.2)
    running = serve(executor)
    job = httpx2.post(f"{running.url}/v1/jobs", json=WISH).json()
    for attempt in (1, 2, 3):
        while httpx2.get(running.url + job["links"]["self"]).json()["attempt"] < attempt:
            time.sleep(0.01)
        running.call(executor.restart)
    while httpx2.get(running.url + job["links"]["self"]).json()["status"] != "dead":
        time.sleep(0.01)
    assert value(running.url, "jobs_total", status="dead") == 1
    assert value(running.url, "job_failures_total", code="job_dead") == 1
    assert value(running.url, "queue_wait_seconds_count") == 1  # its first attempt alone
    assert value(running.url, "engine_restarts_total", reason="ended") == 3


def test_the_queue_is_told_as_it_is_now(serve):
    executor = FakeExecutor(max_images_in_flight=1)
    running = serve(executor, max_queued_requests=7)
    url = running.url
    running.call(executor.hang)
    for _ in range(3):
        httpx2.post(f"{url}/v1/jobs", json=WISH)
    time.sleep(0.05)
    assert (value(url, "queue_jobs"), value(url, "queue_jobs_max")) == (2, 7)
    assert (value(url, "jobs_running"), value(url, "images_in_flight"), value(url, "images_in_flight_max")) == (1, 1, 1)
    assert 0.05 <= value(url, "queue_oldest_seconds") < 10
    assert 0.05 <= value(url, "engine_silence_seconds") < 10
    running.call(executor.wake)


def test_ready_is_what_readyz_says(serve):
    url = serve(FakeExecutor(load_s=60)).url
    assert (value(url, "ready"), value(url, "status", status="loading")) == (0, 1)
    assert value(url, "status", status="healthy") == 0
    assert not any(name == "semantic_bit_engine_info" for name, _ in samples(url))


def test_routes_are_templates_and_callers_cannot_invent_labels(serve):
    url = serve().url
    before = len(samples(url))
    asked = [("GET", f"/v1/jobs/{number:016x}") for number in range(20)]
    asked += [("GET", f"/nowhere/{number}") for number in range(20)]
    asked += [("HEAD", "/health"), ("GET", "/static/docs.js"), ("GET", "/openapi.json"), ("DELETE", "/generate")]
    with httpx2.Client(base_url=url) as client:
        for method, path in asked:
            client.request(method, path)
    assert value(url, "http_requests_total", route="/v1/jobs/{job_id}", method="GET", status="404") == 20
    assert value(url, "http_requests_total", route="none", method="GET", status="404") == 20
    assert value(url, "http_requests_total", route="/health", method="HEAD", status="200") == 1
    assert value(url, "http_requests_total", route="/static", method="GET", status="200") == 1
    assert value(url, "http_requests_total", route="/openapi.json", method="GET", status="200") == 1
    assert value(url, "http_requests_total", route="/generate", method="DELETE", status="405") == 1
    assert value(url, "http_requests_in_progress") == 1  # the scrape itself
    assert len(samples(url)) < before + 100


def test_methods_that_somebody_made_up_are_all_one():
    metrics = Metrics()
    for number in range(9):
        metrics.request_began()
        metrics.request_ended("/health", f"VERB{number}", 405, 0.001)
    labels = {"route": "/health", "method": "other", "status": "405"}
    assert metrics.registry.get_sample_value("semantic_bit_http_requests_total", labels) == 9


def test_a_refusal_beyond_a_limit_is_counted_by_limit(serve):
    url = serve(FakeExecutor(step_s=0.1), api_key="k" * 32, limit_jobs=1).url
    headers = {"Authorization": f"Bearer {'k' * 32}"}
    long = WISH | {"num_inference_steps": 150, "num_images": 8}
    codes = [httpx2.post(f"{url}/v1/jobs", json=long, headers=headers).json().get("code") for _ in range(3)]
    assert codes == [None, "rate_limited", "rate_limited"]
    text = scraped(url, **headers).text
    assert 'semantic_bit_rate_limited_total{limit="jobs"} 2.0' in text
    assert 'semantic_bit_rate_limited_total{limit="requests"} 0.0' in text
    assert 'semantic_bit_errors_total{code="rate_limited"} 2.0' in text


def test_prometheus_gets_openmetrics_and_people_get_text(serve):
    url = serve().url
    draw(url)
    prometheus = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
    theirs, ours = scraped(url, Accept=prometheus), scraped(url, Accept="*/*")
    assert theirs.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert ours.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert len(list(openmetrics_families(theirs.text))) == len(list(text_families(ours.text))) > 30
    assert "_created" not in ours.text
    assert httpx2.get(f"{url}/metrics", headers={"Accept": "application/json"}).json()["code"] == "not_acceptable"


def test_the_terminal_states_that_are_counted_are_those_of_the_store():
    """The metrics import nothing of the server, so that everything may import them."""
    metrics = Metrics()
    counted = {
        sample.labels["status"]
        for family in metrics.registry.collect()
        if family.name == "semantic_bit_jobs"
        for sample in family.samples
    }
    assert counted == TERMINAL


def test_apps_in_one_process_count_for_themselves(serve):
    busy, idle = serve().url, serve().url
    draw(busy)
    assert (value(busy, "jobs_total", status="done"), value(idle, "jobs_total", status="done")) == (1, 0)


def test_what_waits_does_not_make_the_answer_longer(serve):
    executor = FakeExecutor()
    running = serve(executor)
    running.call(executor.hang)
    lengths = []
    for _ in range(3):
        for _ in range(10):
            httpx2.post(f"{running.url}/v1/jobs", json=WISH)
        lengths.append(len(samples(running.url)))
    assert lengths[1] == lengths[2]
    running.call(executor.wake)


def test_work_items_are_told_by_kind_and_rows_and_rows_take_few_values():
    metrics = Metrics()
    for rows in (*range(1, 1025), 1024):
        metrics.work_done("step", rows, 0.02)
    metrics.work_done("decode", 1, 0.2)

    def count(**labels: str) -> float | None:
        return metrics.registry.get_sample_value("semantic_bit_work_item_seconds_count", labels)

    assert count(kind="step", rows="16") == 1
    assert count(kind="step", rows="32") == 16
    assert count(kind="step", rows="1024") == 513
    assert count(kind="decode", rows="1") == 1
    [family] = [family for family in metrics.registry.collect() if family.name == "semantic_bit_work_item_seconds"]
    assert len({sample.labels["rows"] for sample in family.samples}) == 22


async def test_the_warm_up_is_not_counted_as_work(tmp_path, serve):
    """
    It is nobody's work, whether it was done before the engine was ready or after.
    """
    executor = FakeExecutor(load_s=0.3)
    running = serve(executor)
    running.call(executor.work_times.observe, WorkDone("step", 9.0, 2, 512, 512))
    while value(running.url, "ready") != 1:
        await asyncio.sleep(0.05)
    running.call(executor.work_times.observe, WorkDone("step", 9.0, 2, 512, 512))
    assert value(running.url, "work_item_seconds_count", kind="step", rows="2") is None
    running.call(executor.work_times.observe, WorkDone("step", 0.1, 2, 512, 512, {"a job": 2}))
    assert value(running.url, "work_item_seconds_sum", kind="step", rows="2") == 0.1


def test_quantiles_of_late_are_those_of_the_latest_jobs(monkeypatch):
    metrics = Metrics()
    metrics._recent_seconds.extend([1000.0] * 50 + [float(second) for second in range(1, 201)])
    [statistics, _] = metrics.recent()
    told = {sample.labels["statistic"]: sample.value for sample in statistics.samples}
    assert told == {"average": 100.5, "p50": 100, "p95": 190, "p99": 198}
