"""`python -m server health`: the running server's status, in a line and an exit code."""

from __future__ import annotations

import pytest

from server.cli.arguments import main
from server.cli.errors import CommandError
from server.cli.health import verdict
from tests.processes import server_process


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "var"))


def test_a_server_that_is_well_says_so_without_a_key(tmp_path, capsys):
    with server_process(tmp_path, MODEL_ID="fake-engine:1", API_KEY="k" * 32) as server:
        assert main(["health"]) == 0
        server.wait_until_ready()
        assert main(["health"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "healthy"


def test_where_none_runs_nobody_answers(capsys):
    assert main(["health"]) == 3
    assert capsys.readouterr().err.startswith("error: no server responds at ")


@pytest.mark.parametrize(
    ("answer", "exit_code", "told"),
    [
        ({"status": "degraded", "reason": "nothing can be written"}, 0, "degraded: nothing can be written"),
        ({"status": "loading", "reason": None}, 0, "loading"),
        ({"status": "failed", "reason": "no such model"}, 1, "failed: no such model"),
        ({"status": "draining", "reason": None}, 1, "draining"),
    ],
)
def test_only_a_server_that_can_draw_nothing_more_is_unhealthy(answer, exit_code, told):
    if exit_code == 0:
        assert verdict(answer) == told
        return
    with pytest.raises(CommandError) as refused:
        verdict(answer)
    assert (str(refused.value), refused.value.exit_code) == (told, exit_code)
