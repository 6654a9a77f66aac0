"""Lists every text that people meet: errors, log lines, command-line help, pages, messages of client and site.

    .venv/bin/python scripts/texts.py            print them as Markdown
    .venv/bin/python scripts/texts.py --write    write them to docs/messages.md
    .venv/bin/python scripts/texts.py --check    fail if docs/messages.md is out of date

What an operator should do about each error stands in `docs/error_actions.toml`, by the error's code; an error without
an entry there is refused. The texts are read from the source, without importing it; {...} stands for a value.
"""

from __future__ import annotations

import argparse
import ast
import html
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["Problem", "Text", "main", "markdown", "problems", "texts"]

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = Path("docs/messages.md")
ACTIONS: Final = Path("docs/error_actions.toml")

KINDS: Final = {
    "error": "Errors: details",
    "log": "Log lines",
    "help": "Command line",
    "api": "API description (/docs)",
    "metric": "Metrics",
    "page": "Pages",
    "other": "Other messages",
}
"""Kind -> heading, in the page's order."""

_LOG_LEVELS: Final = {"debug", "info", "warning", "error", "exception", "critical"}
_HELP: Final = {"help", "description", "epilog"}
_FORM: Final = {"label", "help_text", "message", "verbose_name", "verbose_name_plural"}
_METRICS: Final = {"Counter", "Gauge", "Histogram", "GaugeMetricFamily", "CounterMetricFamily", "HistogramMetricFamily"}
_METRICS_OF_OURS: Final = {"_counter", "_histogram", "_gauge"}
_PRINTS: Final = {"print", "write", "_say", "_failed", "fail", "Finding", "problem", "_checked"}
_ROUTES: Final = {"get", "post", "put", "delete", "api_route"}
_SHOWN: Final = re.compile(r"[A-Za-z]{2,} [A-Za-z{]")
"""What tells a sentence from a name."""
_SQL: Final = re.compile(r"\b(SELECT|INSERT|UPDATE|DELETE|PRAGMA|CREATE|WHERE)\b")
_ATTRIBUTE: Final = re.compile(r"\b(?:alt|aria-label|content|placeholder|title)=\"([^\"]+)\"")
_JS_STRING: Final = re.compile(r"\"((?:[^\"\\\n]|\\.)*)\"|'((?:[^'\\\n]|\\.)*)'|`((?:[^`\\]|\\.)*)`")


class Problem(NamedTuple):
    """One kind of error, as a problem document names it."""

    status: str
    code: str
    title: str


class Text(NamedTuple):
    """One text, and where it is written."""

    kind: str
    """One of `KINDS`."""
    file: str
    text: str


def problems() -> list[Problem]:
    """Every kind of error of the HTTP API, once."""
    found: dict[Problem, None] = {}
    for path in (ROOT / "server" / "errors.py", ROOT / "server" / "problems.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _name(node.func) == "ProblemKind" and len(node.args) == 3:
                status, code, title = map(_text_of, node.args)
                found[Problem(status or "any other", code, title or "the status's own name")] = None
    return sorted(found, key=lambda problem: (problem.status, problem.code))


def texts() -> list[Text]:
    """Every other text, each once a file and kind, in the order of the source."""
    found: dict[Text, None] = {}
    for folder in ("server", "engine", "client/semantic_bit_client", "newdreamflow"):
        for path in sorted((ROOT / folder).rglob("*")):
            file = path.relative_to(ROOT).as_posix()
            if "/migrations/" in file or "/swagger-ui/" in file:
                continue
            if path.suffix == ".py":
                source = path.read_text(encoding="utf-8")
                found |= {Text(kind, file, text): None for kind, text in _of_python(source)}
                if file.startswith(("server/routes/", "server/schemas/")) and not file.endswith("/keys.py"):
                    found |= {Text("api", file, text): None for text in _of_api(source)}
            elif path.suffix in {".html", ".txt", ".js"}:
                of_file = _of_script if path.suffix == ".js" else _of_template
                found |= {Text("page", file, text): None for text in of_file(path.read_text(encoding="utf-8"))}
    return list(found)


def markdown(actions: Mapping[str, str]) -> str:
    """The page.

    Args:
        actions: an error's code -> what an operator should do.

    Raises:
        ValueError: an error has no action, or an action no error.
    """
    kinds = problems()
    codes = {problem.code for problem in kinds}
    if codes != actions.keys():
        raise ValueError(f"{ACTIONS} must have one entry for each code; wrong: {sorted(codes ^ actions.keys())}")
    lines = [
        "# Messages: what they mean and what to do",
        "",
        "Made by `.venv/bin/python scripts/texts.py --write` from the source and from",
        "[error_actions.toml](error_actions.toml). {...} stands for a value.",
        "",
        "## Errors",
        "",
        "| status | code | title | what to do |",
        "|---|---|---|---|",
        *(f"| {kind.status} | `{kind.code}` | {kind.title} | {actions[kind.code].strip()} |" for kind in kinds),
    ]
    by_kind: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for kind, file, text in texts():
        by_kind[kind][file].append(text)
    for kind, heading in KINDS.items():
        lines += ["", f"## {heading}"]
        for file, of_file in by_kind[kind].items():
            lines += ["", f"### {file}", "", *(f"* {_escaped(text)}" for text in of_file)]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="List every text that people meet.")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE}")
    parser.add_argument("--check", action="store_true", help=f"fail if {PAGE} is out of date")
    options = parser.parse_args(arguments)
    try:
        page = markdown(tomllib.loads((ROOT / ACTIONS).read_text(encoding="utf-8")))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.write:
        (ROOT / PAGE).write_text(page, encoding="utf-8")
    elif options.check:
        before = (ROOT / PAGE).read_text(encoding="utf-8") if (ROOT / PAGE).exists() else ""
        if before != page:
            for line in sorted({*page.splitlines()} ^ {*before.splitlines()})[:20]:
                print(f"{'missing' if line in page else 'gone'}: {line}", file=sys.stderr)
            print(f"error: {PAGE} is out of date: run .venv/bin/python scripts/texts.py --write", file=sys.stderr)
            return 1
    else:
        print(page, end="")
    return 0


def _of_python(source: str) -> Iterator[tuple[str, str]]:
    raised: set[ast.AST] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            raised.add(node.exc)
            # Of InvalidParamsError(field, rule, value) the first two are the sentence's beginning.
            words = [
                _text_of(argument) for argument in node.exc.args if isinstance(argument, ast.Constant | ast.JoinedStr)
            ]
            if text := " ".join(word for word in words if word):
                yield "error", text
        elif isinstance(node, ast.Call) and node not in raised:
            yield from _of_call(node)
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.Return | ast.Dict | ast.IfExp | ast.Tuple):
            yield from (("other", text) for text in _sentences(node))


def _of_call(node: ast.Call) -> Iterator[tuple[str, str]]:
    name, owner = _name(node.func), _name(getattr(node.func, "value", None))
    first = _text_of(node.args[0]) if node.args else ""
    if name in _LOG_LEVELS and owner in {"logger", "_log", "get_logger"}:
        yield "log", first
    elif name in _METRICS | _METRICS_OF_OURS and len(node.args) > 1:
        if help_text := _text_of(node.args[1]):
            yield "metric", f"{'semantic_bit_' * (name in _METRICS_OF_OURS)}{first}: {help_text}"
    elif name.endswith("Error") or name in _PRINTS or owner == "messages":
        yield from (
            ("error" if name.endswith("Error") else "other", text)
            for text in map(_text_of, node.args)
            if text and (name != "Finding" or _SHOWN.search(text))
        )
    for keyword in node.keywords:
        if keyword.arg in _HELP | _FORM and (text := _text_of(keyword.value)):
            yield "help" if keyword.arg in _HELP else "page", text


def _of_api(source: str) -> Iterator[str]:
    """What `/docs` shows of routes and fields: summaries, and the docstrings under routes, records and their fields."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AsyncFunctionDef):
            for route in node.decorator_list:
                if isinstance(route, ast.Call) and _name(route.func) in _ROUTES:
                    summary = next((_text_of(word.value) for word in route.keywords if word.arg == "summary"), "")
                    if summary:  # the others are not in the public description
                        yield f"{summary}: {ast.get_docstring(node)}"
        elif isinstance(node, ast.ClassDef) and {"BaseModel", "_View", "UsageSum"} & {*map(_name, node.bases)}:
            yield from (
                _text_of(line.value)
                for line in node.body
                if isinstance(line, ast.Expr) and _SHOWN.search(_text_of(line.value))
            )


def _sentences(node: ast.AST) -> Iterator[str]:
    """Texts that a statement or a table holds directly."""
    for child in ast.iter_child_nodes(node):
        if (
            isinstance(child, ast.Constant | ast.JoinedStr)
            and _SHOWN.search(text := _text_of(child))
            and not _SQL.search(text)
        ):
            yield text


def _text_of(node: ast.expr) -> str:
    """A literal as it is shown, values as {name}; empty if it is none."""
    if isinstance(node, ast.Constant):
        return str(node.value) if isinstance(node.value, str | int) and not isinstance(node.value, bool) else ""
    if isinstance(node, ast.JoinedStr):
        parts = (
            f"{{{ast.unparse(part.value)}}}" if isinstance(part, ast.FormattedValue) else _text_of(part)
            for part in node.values
        )
        return "".join(parts)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mod):
        return _text_of(node.left) + (_text_of(node.right) if isinstance(node.op, ast.Add) else "")
    if isinstance(node, ast.Call) and _name(node.func) in {"_", "gettext", "gettext_lazy"} and node.args:
        return _text_of(node.args[0])
    return ""


def _of_template(source: str) -> Iterator[str]:
    source = re.sub(
        r"<(script|style)\b.*?</\1>|<!--.*?-->|{#.*?#}|{% comment .*?endcomment %}", "\n", source, flags=re.DOTALL
    )
    yield from (text for text in _ATTRIBUTE.findall(source) if _SHOWN.search(text))
    # The template's own tags end a text.
    source = re.sub(r"{%.*?%}", "\n", source, flags=re.DOTALL)
    source = re.sub(r"</?(?:a|b|code|em|i|span|strong|time)\b[^>]*>", "", source)
    for piece in re.split(r"<[^>]*>|\n\s*\n", source):
        text = " ".join(html.unescape(piece).split())
        if re.search(r"[A-Za-z]{2,}", re.sub(r"{{.*?}}", "", text)):
            yield text


def _of_script(source: str) -> Iterator[str]:
    source = re.sub(r"^\s*(//|\*|/\*).*$", "", source, flags=re.MULTILINE)
    for match in _JS_STRING.finditer(source):
        text = " ".join("".join(part for part in match.groups() if part).split())
        if _SHOWN.search(text) and not re.search(r"[<=;]|use strict", text):
            yield text


def _name(node: ast.AST | None) -> str:
    if isinstance(node, ast.Call):
        return _name(node.func)
    return getattr(node, "attr", None) or getattr(node, "id", None) or ""


def _escaped(text: str) -> str:
    """A text as one line of Markdown that shows it as it is."""
    line = " ".join(text.split())
    return f"`` {line} ``" if "`" in line else f"`{line}`"


if __name__ == "__main__":
    sys.exit(main())
