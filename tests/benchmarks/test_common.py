"""Whether figures are taken and told as they claim to be."""

from __future__ import annotations

import json
import os

import pytest

from benchmarks.common.fresh_process import in_fresh_process
from benchmarks.common.machine import Activity
from benchmarks.common.pairs import Summary, interleave, percentile, ratios
from benchmarks.common.prompts import unread
from benchmarks.common.report import Report, table
from benchmarks.common.serving import RunningServer
from benchmarks.three_prompts import improvement
from engine.models.locate import locate
from engine.models.prompt_cutter import load_tokenizer


def test_contenders_take_turns(capsys):
    order = []
    contenders = {"a": lambda number: order.append(("a", number)), "b": lambda number: order.append(("b", number))}
    interleave(contenders, 2, "drawing")
    assert order == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert capsys.readouterr().out == "", "standard output is for figures"


def test_ratios_are_taken_pair_by_pair():
    """A machine that is three times slower in the second round leaves both ratios at one half."""
    assert ratios([1.0, 3.0], [2.0, 6.0]) == Summary(0.5, 0.5, 0.5)


def test_a_summary_shows_median_and_extremes():
    assert f"{Summary.of([3.0, 1.0, 10.0]):.1f}" == "3.0 (1.0–10.0)"


@pytest.mark.parametrize(("percent", "value"), [(50, 10), (95, 19), (100, 20), (1, 1)])
def test_a_percentile_is_one_of_the_values(percent, value):
    assert percentile(range(20, 0, -1), percent) == value


def test_columns_line_up():
    assert table(["", "median"], [["a", "1.00"], ["bcd", "10.00"]]).splitlines() == [
        "|     | median |",
        "| :-- | -----: |",
        "| a   |   1.00 |",
        "| bcd |  10.00 |",
    ]


def test_the_last_line_is_one_json_document_with_machine_and_goals(capsys, monkeypatch):
    quiet, busy = Activity(load_average=0.0, cores_busy=0.0), Activity(load_average=9.0, cores_busy=1000.0)
    seen = iter([quiet, busy])
    monkeypatch.setattr(Activity, "now", lambda: next(seen))
    report = Report("nothing", {"repeats": 3})
    report.goal("time", 2.0, 1.5, " s")
    report.finish({"time_s": Summary.of([2.0])})
    lines = capsys.readouterr().out.splitlines()
    document = json.loads(lines[-1])
    assert "goal: time <= 1.5 s: 2 s, NOT MET" in lines
    assert [line for line in lines if "WARNING" in line] == [lines[-2]], "only the second look found company"
    assert document["results"] == {"time_s": {"median": 2.0, "min": 2.0, "max": 2.0}}
    assert document["goals"] == [{"claim": "time", "value": 2.0, "limit": 1.5, "unit": " s", "is_met": False}]
    assert document["machine"]["cores"] >= 1
    assert document["is_quiet"] is False


def test_a_fresh_process_has_the_wait_policy_and_this_one_keeps_its_own(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert in_fresh_process("passive", os.getenv, "OMP_WAIT_POLICY") == "passive"
    assert in_fresh_process("unset", os.getenv, "OMP_WAIT_POLICY") is None
    assert os.environ["OMP_WAIT_POLICY"] == "active"


def test_a_server_that_does_not_start_is_told_with_its_reason():
    with pytest.raises(RuntimeError, match="error: MODEL_ID"), RunningServer.started(MODEL_ID="nobody/nothing"):
        pytest.fail("it started")


def test_an_improvement_reads_as_in_the_specification():
    assert improvement(2.86, 2.28) == "0.58 s faster (20.3%)"
    assert improvement(2.0, 2.5) == "0.50 s slower (25.0%)"


def test_an_unread_prompt_has_the_same_tokens():
    tokenizer = load_tokenizer(locate("models/dreamlet").path)
    assert unread("a cat", 3) != "a cat"
    assert tokenizer.tokens(unread("a cat", 3)) == tokenizer.tokens("a cat")
