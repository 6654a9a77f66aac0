"""The page for people: who gets it, that it is made of our own files only, and that its parts fit together."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import httpx2
import pytest

from server.routes.info import STATIC_FOLDER

APP = STATIC_FOLDER / "app"
SCRIPTS = sorted(APP.glob("*.js"))
LINKS = {"href", "src", "action", "formaction", "poster", "srcset"}
CHROMIUM_ACCEPTS = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


class Elements(HTMLParser):
    """Every element of a document, as (tag, attributes)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


CANNOT_BE_WRONG = {"checkbox", "radio", "file"}
"""Types of controls without a place for an error of their own: what they hold is chosen, not typed."""

PAINTED = {"image", "mask", "mask_invert"}
"""Fields that the page fills from pictures."""

NOT_ON_THE_PAGE = {
    "clip_skip", "emphasis", "engine_class", "guidance_end", "guidance_rescale", "guidance_start", "image_metadata",
    "prompt_syntax", "size_ids", "user",
}  # fmt: skip
"""Fields for programs only."""


@pytest.fixture(scope="module")
def client(server):
    with httpx2.Client(base_url=server.url) as client:
        yield client


@pytest.fixture(scope="module")
def page(client):
    answer = client.get("/", headers={"Accept": CHROMIUM_ACCEPTS})
    assert answer.status_code == 200
    return answer


@pytest.fixture(scope="module")
def elements(page):
    return Elements(page.text).found


def test_a_browser_gets_the_page(page):
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.text == (APP / "index.html").read_text()


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "application/json, text/html;q=0.9", "text/plain"])
def test_a_program_gets_json(client, accept):
    headers = {"Accept": accept} if accept else {}
    answer = client.get("/", headers=headers)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["name"] == "Semantic Bit GPU server"


def test_caches_keep_the_two_apart(client, page):
    for answer in (page, client.get("/")):
        assert answer.headers["vary"] == "Accept"
        assert answer.headers["cache-control"] == "no-cache"


def test_the_policy_forbids_everything_inline_and_foreign(page):
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'self'"
    assert policy["img-src"] == "'self' blob: data:"
    assert not {"script-src", "style-src"} & policy.keys(), "nothing is looser than the default"
    assert policy["frame-ancestors"] == policy["form-action"] == policy["base-uri"] == "'none'"


def test_nothing_is_inline(elements, page):
    for tag, attributes in elements:
        assert tag != "style"
        assert tag != "script" or attributes.get("src")
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
    assert "javascript:" not in page.text


def test_every_file_of_the_page_is_served_by_us_with_its_type(client, elements):
    wanted = [attributes["src"] for tag, attributes in elements if tag == "script"]
    wanted += [attributes["href"] for tag, attributes in elements if tag == "link"]
    assert len(wanted) == 6
    for path in wanted:
        answer = client.get(f"/{path}")
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-cache", "no old script beside a new one after an upgrade"
        assert answer.headers["content-type"].partition(";")[0] in {"text/javascript", "text/css", "image/svg+xml"}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_import_only_their_neighbours(script):
    imported = re.findall(r'^(?:import|export)[^"]* from "([^"]+)"|^import "([^"]+)"', script.read_text(), re.MULTILINE)
    for path in ("".join(groups) for groups in imported):
        assert path.startswith("./")
        assert (script.parent / path).exists()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_make_no_markup_out_of_text(script):
    text = script.read_text()
    for danger in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "//cdn"):
        assert danger not in text
    assert text.startswith("// "), "the first line says which question the file answers"


@pytest.mark.parametrize("script", [*SCRIPTS, STATIC_FOLDER / "docs.js"], ids=lambda path: path.name)
def test_scripts_ask_below_their_own_folder(script):
    """Behind a proxy that strips a path prefix, an absolute path would lead elsewhere."""
    text = script.read_text()
    assert re.findall(r"""[\s(=:?,[]["'`]/\w*""", text) == []
    assert re.findall(r"location\.origin|\.links\b|\.thumbnail_url|image\.url", text) == []


@pytest.mark.parametrize("path", [APP / "index.html", STATIC_FOLDER / "docs.html"], ids=lambda path: path.name)
def test_pages_link_below_their_own_folder(path):
    links = [value for _, each in Elements(path.read_text()).found for name, value in each.items() if name in LINKS]
    assert links
    assert [link for link in links if link.startswith("/") or ":" in link] == []


def test_scripts_ask_for_elements_that_are_there(elements):
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    asked = set()
    for script in SCRIPTS:
        asked |= set(re.findall(r'(?:part\(|querySelector(?:All)?\()"#?([\w-]+)"\)', script.read_text()))
    asked -= {"img", "button", ".words"}
    assert len(asked) > 30
    assert asked <= set(ids)


def test_every_control_has_a_label_and_a_place_for_its_error(elements):
    labels = {attributes.get("for") for tag, attributes in elements if tag == "label"}
    ids = {attributes.get("id") for _, attributes in elements}
    controls = [attributes for tag, attributes in elements if tag in {"input", "select", "textarea"}]
    named = [attributes for attributes in controls if attributes.get("type") not in {"range", *CANNOT_BE_WRONG}]
    assert len(named) == 30
    for attributes in named:
        assert attributes["id"] in labels
        assert f"{attributes['id']}-error" in attributes["aria-describedby"].split()
        assert f"{attributes['id']}-error" in ids
    for attributes in controls:
        if attributes.get("type") == "range":
            assert attributes["aria-hidden"] == "true", "a slider repeats the number beside it"


def test_the_form_speaks_the_apis_names(client, elements):
    description = client.get("/openapi.json").json()
    fields = description["components"]["schemas"]["GenerateRequest"]["properties"].keys()
    named = {a["name"] for tag, a in elements if tag in {"input", "select", "textarea"} and "name" in a}
    asked = {name.partition(".")[0] for name in named - {"mode", "hires-switch"}}
    assert asked == fields - PAINTED - NOT_ON_THE_PAGE


def test_the_style_loads_nothing_and_respects_the_readers_wishes():
    style = "".join(path.read_text() for path in APP.glob("*.css"))
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme: dark" in style
    assert "prefers-reduced-motion: reduce" in style
    assert ":focus-visible" in style
