"""docs/performance.md has the figures of benchmarks/results, and shows what a run says, a goal that is missed too."""

from __future__ import annotations

import json
from pathlib import Path

from scripts import performance


def test_the_document_has_the_figures_of_the_result_files():
    assert performance.main(["--check"]) == 0


def test_a_missed_goal_and_a_busy_machine_show(tmp_path: Path):
    found = {"step_s": 8.0, "peak_mib": 4096.0, "start_s": 1.0, "conversion_s": None, "conversion_peak_mib": None}
    run = {
        "benchmark": "full_size",
        "measured_at": "2026-12-01T10:00:00+00:00",
        "machine": {"cpu": "A CPU", "cores": 2, "torch": "2.13"},
        "is_quiet": False,
        "settings": {"arch": "sd15", "size": "512"},
        "results": {"least_step_s": 4.0, "contenders": {"torch": found, "openvino": found | {"conversion_s": 60.0}}},
        "goals": [{"claim": "a step", "value": 1.5, "limit": 1.0, "unit": " s", "is_met": False}],
    }
    (tmp_path / "full_size.txt").write_text(f"# some words\n{json.dumps(run)}\n")
    shown = performance.figures(tmp_path)
    assert "| `full_size` | a step | 1.5 s | 1 s | **not met** |" in shown
    assert "busy: trust ratios" in shown
    assert "| torch | 8 | 0.50 | 4096 |  |  |" in shown
    assert "| openvino | 8 | 0.50 | 4096 | 60 |  |" in shown
