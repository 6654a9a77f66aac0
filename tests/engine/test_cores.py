"""How many threads compute, on machines and in containers of all kinds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from engine.backends.cores import usable_cores

FOUR = frozenset(range(4))


def machine(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def hyper_threads(cores: int) -> dict[str, str]:
    """Logical processor n and n + cores are one core."""
    return {
        f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list": (
            f"{number % cores},{number % cores + cores}"
        )
        for number in range(2 * cores)
    }


def test_a_machine_that_says_nothing_has_a_core_for_each_processor(tmp_path: Path):
    assert usable_cores(tmp_path, FOUR) == 4


def test_two_threads_of_a_core_count_once(tmp_path: Path):
    assert usable_cores(machine(tmp_path, hyper_threads(32)), frozenset(range(64))) == 32


def test_only_processors_count_that_the_process_may_use(tmp_path: Path):
    root = machine(tmp_path, hyper_threads(32))
    assert usable_cores(root, frozenset({0, 1, 32, 33, 5})) == 3
    assert usable_cores(root, frozenset({7})) == 1


def test_one_call_stays_on_one_processor_of_several(tmp_path: Path):
    nodes = {"sys/devices/system/node/node0/cpulist": "0-15", "sys/devices/system/node/node1/cpulist": "16-31"}
    root = machine(tmp_path, nodes)
    assert usable_cores(root, frozenset(range(32))) == 16
    assert usable_cores(root, frozenset(range(12, 32))) == 16
    assert usable_cores(root, frozenset({0, 1, 16})) == 2


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", 4), ("200000 100000", 2), ("350000 100000", 3), ("50000 100000", 1), ("", 4), ("junk", 4)],
)
def test_a_containers_share_of_time_is_rounded_down(tmp_path: Path, quota: str, cores: int):
    root = machine(tmp_path, {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": quota})
    assert usable_cores(root, FOUR) == cores


def test_the_tightest_of_the_groups_around_a_process_counts(tmp_path: Path):
    root = machine(
        tmp_path,
        {
            "proc/self/cgroup": "0::/system.slice/semantic-bit.service",
            "sys/fs/cgroup/system.slice/cpu.max": "200000 100000",
            "sys/fs/cgroup/system.slice/semantic-bit.service/cpu.max": "300000 100000",
        },
    )
    assert usable_cores(root, FOUR) == 2


@pytest.mark.parametrize(("quota", "cores"), [("-1", 4), ("150000", 1)])
def test_version_1_of_control_groups_is_read_too(tmp_path: Path, quota: str, cores: int):
    folder = "sys/fs/cgroup/cpu,cpuacct"
    root = machine(
        tmp_path,
        {
            "proc/self/cgroup": "12:memory:/docker/1\n4:cpu,cpuacct:/docker/1",
            f"{folder}/cpu.cfs_quota_us": quota,
            f"{folder}/cpu.cfs_period_us": "100000",
        },
    )
    assert usable_cores(root, FOUR) == cores


def test_this_machine_has_at_least_one():
    assert usable_cores() >= 1
