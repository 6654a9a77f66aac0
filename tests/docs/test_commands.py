"""Every command of the pages can be typed as it is printed: the program, its subcommand and its options exist."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest
from django.core.management import get_commands

from server.cli.arguments import build_parser
from tests.docs.test_pages import PAGES, REPOSITORY

BLOCK = re.compile(r"^ *```(?:bash|sh)\n(.*?)^ *```$", flags=re.MULTILINE | re.DOTALL)
ANY_BLOCK = re.compile(r"^ *```.*?^ *```$", flags=re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`]+)`")
HAS_ITS_OWN_PYTHON = re.compile(r"docker (compose|exec|run)\b")
STANDARD_LIBRARY_ONLY = re.compile(r"(?<![\w/.-])python3 ((?:examples|scripts)/\S+|-m pip\b|-m venv\b|-c\b)")
BARE = re.compile(r"(?<![\w/.-])(?<!-m )(python3?|pip3?|uuidgen|pytest|ruff|mypy|lint-imports) +(?=[-\w./])")
MANAGE = "newdreamflow/manage.py"

SOURCES = [
    *(page for page in PAGES if page.parent.name != "changelog.d" and page.name not in {"CHANGELOG.md", "LOG.md"}),
    *sorted((REPOSITORY / "examples").rglob("*.py")),
]


def commands(path: Path) -> list[str]:
    """Every line of a page's shell blocks, and every inline code that looks like a command; comments are cut off."""
    text = path.read_text()
    if path.suffix == ".py":
        return [line.strip(" .") for line in ast.get_docstring(ast.parse(text)).splitlines() if "python" in line]
    lines = "\n".join(BLOCK.findall(text)).replace("\\\n", " ").splitlines()
    lines += [" ".join(code.split()) for code in INLINE.findall(ANY_BLOCK.sub("", text))]
    return [re.sub(r"(^|\s)#.*", "", line).strip() for line in lines]


def typed(pattern: str) -> list:
    """What follows a program in the pages' commands, up to the end of that command."""
    found = {
        (str(path.relative_to(REPOSITORY)), match[1].strip())
        for path in SOURCES
        for command in commands(path)
        for match in re.finditer(pattern + r"([^|&;<>]*)", command)
    }
    return [pytest.param(arguments, id=f"{page}: {arguments[:60]}") for page, arguments in sorted(found)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_no_command_relies_on_what_a_machine_may_not_have(path):
    """A clone's packages are in `.venv`; only what needs none may be run by another Python."""
    for command in commands(path):
        if not HAS_ITS_OWN_PYTHON.search(command):
            assert not BARE.search(STANDARD_LIBRARY_ONLY.sub("", command)), command


@pytest.mark.parametrize("arguments", typed(r"(?:python -m server|(?:^|sudo |[;&|'] *)semantic-bit) (?=[a-z])"))
def test_the_servers_command_line_takes_it(arguments):
    words = re.sub(r"\bDAY\b", "2026-11-28", re.sub(r"[][']|\.\.\.", "", arguments).replace("|", " ")).split('"')
    words = [word for text in words[::2] for word in text.split()] if len(words) == 1 else shlex.split('"'.join(words))
    digits = 12 if words[0] == "keys" else 16
    pairs = zip(["", *words], words, strict=False)
    words = ["0" * (12 if before == "--key" else digits) if word == "ID" else word for before, word in pairs]
    if not any(word.startswith("-") for word in words):
        # One that is only named, such as `keys create`, need not be whole.
        words.append("--help")
    try:
        build_parser().parse_args(words)
    except SystemExit as ended:
        if ended.code:
            pytest.fail(f"{words}: exit code {ended.code}")


@pytest.mark.parametrize("arguments", typed(rf"{MANAGE} "))
def test_the_sites_command_exists(arguments):
    assert arguments.split()[0] in {*get_commands(), "COMMAND"}


@pytest.mark.parametrize("arguments", typed(r"python3? (?=(?:scripts|examples)/)"))
def test_the_script_exists_and_has_these_options(arguments):
    name, *rest = arguments.split()
    source = (REPOSITORY / name).read_text()
    assert all(f'"{option}"' in source for option in rest if re.fullmatch(r"--[a-z-]+", option)), arguments


@pytest.mark.parametrize("arguments", typed(r"python -m (?!server\b)"))
def test_the_module_exists(arguments):
    assert importlib.util.find_spec(arguments.split()[0]), arguments


@pytest.mark.parametrize("arguments", typed(r"^make "))
def test_the_target_exists(arguments):
    makefile = (REPOSITORY / "Makefile").read_text()
    assert re.search(rf"^{re.escape(arguments.split()[0])}:", makefile, flags=re.MULTILINE)


@pytest.mark.parametrize("arguments", typed(r"(?<![\w/.-])python3 (?=examples/)"))
def test_what_any_python_may_run_needs_the_standard_library_alone(arguments):
    tree = ast.parse((REPOSITORY / arguments.split()[0]).read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names


def test_there_are_commands_to_look_at():
    assert len(typed(r"python -m server ")) > 10
    assert len(typed(rf"{MANAGE} ")) > 4
    assert len(typed(r"^make ")) > 4
