"""Every example works as it stands: the curl calls of the pages, and the programs in `examples/`."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = REPOSITORY / "examples"
PNG = b"\x89PNG\r\n\x1a\n"

BASH = re.compile(r"^```bash\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
CURL_CALLS = [
    pytest.param(block, id=f"{page}-{number}")
    for page in ("README.md", "docs/http-api.md")
    for number, block in enumerate(BASH.findall((REPOSITORY / page).read_text()), start=1)
    if block.startswith("curl ")
]


def run(*arguments: str, folder: Path, timeout_s: float = 30) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, check=False, text=True, timeout=timeout_s
    )


def test_there_are_curl_calls_to_try():
    assert len(CURL_CALLS) >= 3


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("block", CURL_CALLS)
def test_a_curl_call_of_the_pages_works_as_it_stands(serve, tmp_path, block):
    port = serve().port
    call = block.replace("localhost:8000", f"127.0.0.1:{port}")
    assert call != block
    # An error's status becomes curl's; what it prints is shown when the test fails.
    call = call.replace("curl ", "curl --disable --noproxy '*' --silent --show-error --fail-with-body ", 1)
    finished = subprocess.run(
        ["bash", "-euc", call], cwd=tmp_path, capture_output=True, check=False, text=True, timeout=30
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    saved = re.findall(r"--output (\S+)", block)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(saved)
    for name in saved:
        file = (tmp_path / name).read_bytes()
        assert len(file) > 50
        assert not file.startswith(b"{")
    assert saved or finished.stdout.startswith("{")


def test_draw_saves_a_picture_and_says_how_to_get_it_again(serve, tmp_path):
    address = f"http://127.0.0.1:{serve().port}"
    arguments = [str(EXAMPLES / "draw.py"), "a cat", "--url", address]
    first = run(*arguments, folder=tmp_path)
    assert first.returncode == 0, first.stderr
    [seed] = re.findall(r"\(seed (\d+); queue;dur=", first.stdout)
    again = run(*arguments, "--seed", seed, "--output", "again.png", folder=tmp_path)
    assert again.returncode == 0, again.stderr
    picture = (tmp_path / "picture.png").read_bytes()
    assert picture.startswith(PNG)
    assert (tmp_path / "again.png").read_bytes() == picture


def test_draw_hands_on_every_wish(serve, tmp_path):
    server = serve()
    wishes = ["--negative-prompt", "snow", "--steps", "3", "--seed", "7"]
    finished = run(
        str(EXAMPLES / "draw.py"), "a cat", "--url", f"http://127.0.0.1:{server.port}", *wishes, folder=tmp_path
    )
    assert finished.returncode == 0, finished.stderr
    [job] = server.executor.started
    params = job.params
    assert (params.prompt, params.negative_prompt, params.num_inference_steps, params.seed) == ("a cat", "snow", 3, 7)


def test_many_seeds_saves_each_picture_under_its_seed(serve, tmp_path):
    address = f"http://127.0.0.1:{serve().port}"
    finished = run(str(EXAMPLES / "many_seeds.py"), "a cat", "--count", "10", "--url", address, folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    files = {path.name: path.read_bytes() for path in (tmp_path / "pictures").iterdir()}
    assert files.keys() == {f"{seed}.png" for seed in range(1, 11)}
    assert all(file.startswith(PNG) for file in files.values())
    assert len(set(files.values())) == 10
    alone = run(str(EXAMPLES / "draw.py"), "a cat", "--seed", "9", "--url", address, folder=tmp_path)
    assert alone.returncode == 0, alone.stderr
    assert (tmp_path / "picture.png").read_bytes() == files["9.png"]


@pytest.mark.parametrize("example", ["draw.py", "many_seeds.py"])
def test_an_example_says_in_one_line_what_went_wrong(serve, tmp_path, example):
    address = f"http://127.0.0.1:{serve().port}"
    refused = run(str(EXAMPLES / example), " ", "--url", address, folder=tmp_path)
    assert refused.returncode == 1
    assert refused.stderr == "422 invalid_request: prompt must not be empty, not ' '\n"
    unreachable = run(str(EXAMPLES / example), "a cat", "--url", "http://127.0.0.1:1", folder=tmp_path)
    assert unreachable.returncode == 1
    [line] = unreachable.stderr.splitlines()
    assert line.startswith("no answer from http://127.0.0.1:1: ")
    no_url = run(str(EXAMPLES / example), "a cat", "--url", "127.0.0.1:8000", folder=tmp_path)
    assert no_url.returncode == 2
    assert no_url.stderr.endswith("error: --url must be like http://127.0.0.1:8000, not '127.0.0.1:8000'\n")


def test_the_engine_draws_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    drawn = run("-m", "examples.engine", folder=tmp_path, timeout_s=300)
    assert drawn.returncode == 0, drawn.stderr
    pictures = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert pictures.keys() == {"cat.png", "boat.png"}
    assert all(picture.startswith(PNG) and len(picture) > 1000 for picture in pictures.values())
    assert len((EXAMPLES / "engine.py").read_text().splitlines()) <= 26


def test_every_example_is_tried_here():
    tried = {"__init__.py", *re.findall(r'EXAMPLES / "(\w+\.py)"', Path(__file__).read_text())}
    assert {path.name for path in EXAMPLES.iterdir() if path.suffix == ".py"} == tried
