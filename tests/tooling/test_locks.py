"""What is asked for, what is locked and what is explained are the same packages."""

import re
import tomllib
from pathlib import Path

import pytest
from choose_lock import CONSTRAINTS, CUDA12_LOCK, DEFAULT_LOCK
from install_venv import EXTRA_LOCKS
from lock import RAY_LOCK, canonical, read_pins
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RUNTIME = [Requirement(line) for line in PROJECT["dependencies"]]
EXTRAS = {
    extra: [Requirement(line) for line in PROJECT["optional-dependencies"][extra]] for extra in (*EXTRA_LOCKS, "ray")
}


@pytest.mark.parametrize("lock", [DEFAULT_LOCK, CUDA12_LOCK])
def test_each_lock_pins_what_pyproject_asks_for(lock: str) -> None:
    pins = read_pins(ROOT / lock)
    for wanted in RUNTIME:
        assert wanted.specifier.contains(pins[canonical(wanted.name)]), wanted


def test_the_sites_lock_holds_all_that_the_site_needs_in_the_servers_versions() -> None:
    runtime, site = read_pins(ROOT / DEFAULT_LOCK), read_pins(ROOT / EXTRA_LOCKS["site"])
    for wanted in EXTRAS["site"]:
        assert wanted.specifier.contains(site[canonical(wanted.name)]), wanted
    assert all(runtime.get(name, pin) == pin for name, pin in site.items())


def test_the_tests_lock_adds_what_the_tests_need_and_repeats_nothing() -> None:
    others = read_pins(ROOT / DEFAULT_LOCK) | read_pins(ROOT / EXTRA_LOCKS["site"])
    dev = read_pins(ROOT / EXTRA_LOCKS["dev"])
    assert not others.keys() & dev.keys()
    for wanted in EXTRAS["dev"]:
        assert wanted.specifier.contains((others | dev)[canonical(wanted.name)]), wanted


def test_rays_lock_adds_what_ray_needs_to_the_servers_and_repeats_nothing() -> None:
    runtime, ray = read_pins(ROOT / DEFAULT_LOCK), read_pins(ROOT / RAY_LOCK)
    assert not runtime.keys() & ray.keys()
    for wanted in EXTRAS["ray"]:
        assert wanted.specifier.contains(ray[canonical(wanted.name)]), wanted


def test_requirements_txt_says_what_pyproject_says() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == PROJECT["dependencies"]


def test_the_two_locks_differ_in_torch_alone() -> None:
    default, cuda12 = read_pins(ROOT / DEFAULT_LOCK), read_pins(ROOT / CUDA12_LOCK)
    assert default.pop("torch") == "2.13.0"
    assert cuda12.pop("torch") == "2.10.0"
    assert default == cuda12


@pytest.mark.parametrize(("lock", "mark"), [(DEFAULT_LOCK, "cu13"), (CUDA12_LOCK, "cu12")])
def test_cuda_libraries_are_held_by_constraints_and_forced_on_nobody(lock: str, mark: str) -> None:
    assert f"-c {CONSTRAINTS[lock]}" in (ROOT / lock).read_text().splitlines()
    libraries = read_pins(ROOT / CONSTRAINTS[lock])
    assert f"nvidia-cudnn-{mark}" in libraries
    assert not libraries.keys() & read_pins(ROOT / lock).keys()


@pytest.mark.parametrize("name", [DEFAULT_LOCK, CUDA12_LOCK, *EXTRA_LOCKS.values(), RAY_LOCK, *CONSTRAINTS.values()])
def test_a_lock_holds_exact_versions_and_names_no_index(name: str) -> None:
    lines = [line for line in (ROOT / name).read_text().splitlines() if not line.startswith(("#", "-c "))]
    assert lines
    for line in lines:
        assert re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*( ; [a-z_]+ != \"win32\")?", line), line


def test_every_package_we_ask_for_is_explained() -> None:
    wanted = {canonical(package.name) for packages in (RUNTIME, *EXTRAS.values()) for package in packages}
    table_rows = re.findall(r"^\| `([a-z0-9-]+)` \| \S", (ROOT / "docs/dependencies.md").read_text(), re.MULTILINE)
    assert set(table_rows) == wanted
    assert len(table_rows) == len(set(table_rows))
