"""`docs/http-api.md` says what the API does: its fields, codes and the version of the vendored Swagger UI."""

from __future__ import annotations

import re
from pathlib import Path

from server.errors import PROBLEMS
from server.problems import _HTTP_CODES
from server.routes.info import STATIC_FOLDER
from server.schemas.generation import GenerateRequest

PAGE = (Path(__file__).parents[2] / "docs" / "http-api.md").read_text()


def rows_of(heading: str) -> list[str]:
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^\|(.*)\|$", section, flags=re.MULTILINE)


def test_every_field_of_a_request_is_documented():
    documented = {name for row in rows_of("Draw") for name in re.findall(r"`([a-z_]+)`", row.split("|")[0])}
    assert GenerateRequest.model_fields.keys() <= documented


def test_every_problem_code_is_documented_with_its_status():
    rows = rows_of("Errors")
    for kind in {*PROBLEMS.values(), *_HTTP_CODES.values()}:
        if kind.code != "client_closed_request":  # nobody is left to read it
            assert any(str(kind.status) in row.split("|")[0] and f"`{kind.code}`" in row for row in rows), kind


def test_the_version_of_swagger_ui_is_the_one_that_is_served():
    [documented] = re.findall(r"Swagger UI (\d+\.\d+\.\d+)", PAGE)
    assert documented in (STATIC_FOLDER / "swagger-ui" / "swagger-ui-bundle.js").read_text()
