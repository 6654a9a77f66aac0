"""Medians of the engine's work items: recent, robust, scaled for shapes that were never seen."""

from __future__ import annotations

import msgspec
import pytest

from server.executors.messages import WorkDone
from server.executors.work_times import WorkTimes


def seen(*items: WorkDone) -> WorkTimes:
    times = WorkTimes()
    for item in items:
        times.observe(item)
    return times


def step(seconds: float, size: int = 512, rows: int = 2) -> WorkDone:
    return WorkDone("step", seconds, rows, size, size)


def test_nothing_is_known_until_something_was_seen():
    times = WorkTimes()
    assert times.median_s("step", 2, 512, 512) is None
    assert times.longest_median_s() is None


def test_one_slow_item_does_not_matter():
    times = seen(step(9.0), *[step(0.1) for _ in range(4)])
    assert times.median_s("step", 2, 512, 512) == 0.1
    assert times.longest_median_s() == 0.1


def test_a_change_of_load_is_learned_within_one_picture():
    times = seen(*[step(0.1) for _ in range(1000)], *[step(0.3) for _ in range(14)])
    assert times.median_s("step", 2, 512, 512) == 0.3


def test_kinds_and_shapes_are_told_apart():
    times = seen(
        step(0.1),
        step(0.4, size=1024),
        step(0.9, rows=32),
        WorkDone("decode", 0.2, 1, 512, 512),
        WorkDone("encode", 0.01, 2, 0, 0),
    )
    assert times.median_s("step", 2, 512, 512) == 0.1
    assert times.median_s("step", 2, 1024, 1024) == 0.4
    assert times.median_s("step", 32, 512, 512) == 0.9
    assert times.median_s("decode", 1, 512, 512) == 0.2
    assert times.median_s("encode", 2, 0, 0) == 0.01
    assert times.longest_median_s() == 0.9


def test_an_unknown_size_is_scaled_from_the_nearest_known_one_by_its_area():
    times = seen(step(0.1, size=512), step(3.0, size=2048))
    assert times.median_s("step", 2, 256, 512) == pytest.approx(0.05)
    assert times.median_s("step", 2, 1536, 2048) == pytest.approx(2.25)


def test_an_unknown_number_of_rows_is_scaled_too():
    assert seen(step(0.1, rows=2)).median_s("step", 4, 512, 512) == pytest.approx(0.2)
    assert seen(WorkDone("encode", 0.02, 2, 0, 0)).median_s("encode", 1, 0, 0) == pytest.approx(0.01)


def test_one_kind_says_nothing_of_another():
    assert seen(step(0.1)).median_s("decode", 1, 512, 512) is None


def test_only_the_sizes_of_late_are_remembered():
    times = seen(step(99.0, size=64), *[step(0.1, size=size) for size in range(512, 512 + 8 * 64, 8)])
    assert times.longest_median_s() == 0.1
    times = seen(step(99.0, size=64))
    for size in range(512, 512 + 8 * 500, 8):
        times.observe(step(0.1, size=size))
        times.observe(step(99.0, size=64))
    assert times.longest_median_s() == 99.0
    assert len(times._seconds) == 64


def test_what_was_learned_of_one_backend_says_nothing_of_another():
    """
    Torch may take ten times as long: a size that it never drew must not be expected as soon as with OpenVINO.
    """
    fast = msgspec.structs.replace(step(1.0), backend="openvino")
    times = seen(fast)
    assert times.longest_median_s() == 1.0
    times.observe(msgspec.structs.replace(step(10.0, size=256, rows=4), backend="torch"))
    assert times.longest_median_s() == 10.0
    assert times.median_s("step", 2, 512, 512) == pytest.approx(20.0)
    assert times.step_rows(512, 512, otherwise=8) == 8
    times.observe(fast)
    assert times.median_s("step", 2, 512, 512) == 1.0
