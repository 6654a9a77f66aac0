"""The page and `/docs` in a real Chromium behind a real Caddy that strips a path prefix."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import time
from dataclasses import dataclass, field

import httpx2
import pytest

from server.worker.fake_executor import FakeExecutor
from tests.processes import caddy_process, free_port

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect

pytestmark = pytest.mark.skipif(shutil.which("caddy") is None, reason="caddy is not installed (Debian's package caddy)")

PREFIX = "/dreams/gpu/"
API_KEY = "correct horse battery staple, and two more"


@dataclass
class Proxied:
    """A GPU server, and the origin at which Caddy shows it under the prefix."""

    origin: str
    stop: object = field(repr=False)

    @property
    def url(self):
        return f"{self.origin}{PREFIX}"


@contextlib.contextmanager
def under_a_prefix(serve, folder, **settings):
    server = serve(FakeExecutor(step_s=0.02), api_key=API_KEY, trusted_proxies="127.0.0.1", **settings)
    port = free_port()
    caddyfile = (
        f"http://127.0.0.1:{port} {{\n"
        f" handle_path {PREFIX}* {{\n  reverse_proxy 127.0.0.1:{server.port}\n }}\n"
        " handle {\n  respond 404\n }\n"
        ' handle_errors {\n  header Content-Type application/problem+json\n  respond `{"title":"The proxy could not '
        'pass this on","status":502,"detail":"Bad Gateway","code":"proxy_error"}` {err.status_code}\n }\n'
        "}"
    )
    with caddy_process(folder, caddyfile, options="auto_https off") as caddy:
        proxied = Proxied(f"http://127.0.0.1:{port}", server.stop)
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(httpx2.TransportError):
                assert httpx2.get(f"{proxied.url}livez").status_code == 200
                break
            assert caddy.poll() is None, (folder / "caddy.log").read_text()
            assert time.monotonic() < deadline, (folder / "caddy.log").read_text()
            time.sleep(0.05)
        yield proxied


@pytest.fixture(scope="module")
def proxied(module_serve, tmp_path_factory):
    with under_a_prefix(module_serve, tmp_path_factory.mktemp("caddy")) as proxied:
        yield proxied


@pytest.fixture
def page(new_page, proxied):
    """A window in which no page may ask for anything outside the prefix."""
    page = new_page(may_lose=True, permissions=["clipboard-read", "clipboard-write"])
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    yield page
    assert [url for url in asked if not url.startswith((proxied.url, f"blob:{proxied.origin}", "data:"))] == []
    assert asked


def open_with_key(page, url):
    page.goto(url)
    page.get_by_label("API key", exact=True).fill(API_KEY)
    page.get_by_role("button", name="Use it").click()
    page.wait_for_selector("#sampler option", state="attached")


def draw(page, prompt, **fields):
    page.get_by_label("Prompt", exact=True).fill(prompt)
    for name, value in fields.items():
        page.locator(f"[name={name}]").fill(str(value))
    page.get_by_role("button", name="Draw", exact=True).click()


def test_all_of_the_page_works_below_the_prefix(page, proxied, tmp_path):
    open_with_key(page, proxied.url)
    draw(page, "a cat", num_inference_steps=20, num_images=2)
    expect(page.locator("#progress-words")).to_contain_text(re.compile(r"Step \d+ of 40"))  # the event stream
    expect(page.locator("#picture")).to_be_visible()
    expect(page.locator("#tiles .tile img").first).to_be_visible()  # a thumbnail
    page.get_by_role("button", name="Picture 2 of 2").click()
    draw(page, "a dog", num_inference_steps=150, num_images=8)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#ended")).to_contain_text("Cancelled.")
    page.go_back()
    expect(page.locator("#caption-prompt")).to_have_text("a cat")
    expect(page.locator("#picture")).to_be_visible()
    page.reload()
    expect(page.locator("#caption-prompt")).to_have_text("a cat")
    expect(page.locator("#queue-line")).to_contain_text("Ready")

    page.get_by_role("button", name="Copy as curl").click()
    command = page.evaluate("navigator.clipboard.readText()")
    assert f"{proxied.url}generate" in command
    environment = {"SEMANTIC_BIT_API_KEY": API_KEY, "PATH": "/usr/bin:/bin"}
    subprocess.run(["sh", "-c", command], cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=20)
    [picture] = tmp_path.glob("*.png")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_key_and_a_draft_belong_to_the_server_they_were_entered_for(page, proxied):
    open_with_key(page, proxied.url)
    page.get_by_label("Prompt", exact=True).fill("a secret")
    names = page.evaluate("Object.keys(sessionStorage)")
    assert sorted(names) == [f"semantic-bit-api-key{PREFIX}", f"semantic-bit-draft{PREFIX}"]


def test_the_documentation_asks_below_the_prefix(page, proxied):
    page.goto(proxied.url)
    page.get_by_role("button", name="Not now").click()
    page.get_by_role("link", name="API").click()
    assert page.url == f"{proxied.url}docs"
    page.get_by_role("button", name="GET /health", exact=False).first.click()
    page.get_by_role("button", name="Try it out").click()
    with page.expect_response(f"{proxied.url}health") as answer:
        page.get_by_role("button", name="Execute").click()
    assert answer.value.status == 200
    expect(page.locator(".curl-command")).to_contain_text(f"{proxied.url}health")


def test_a_proxy_without_its_server_is_a_lost_connection(new_page, serve, tmp_path):
    with under_a_prefix(serve, tmp_path) as proxied:
        page = new_page(may_lose=True)
        open_with_key(page, proxied.url)
        proxied.stop()
        draw(page, "a cat")
        expect(page.get_by_role("alert")).to_contain_text("No connection to the server. Trying again")
        expect(page.locator("#queue-line")).to_contain_text("No connection")
