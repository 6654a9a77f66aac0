"""The API's own pages: they need no other host, and the description says what the API does."""

from __future__ import annotations

import re

import httpx2
import pytest

from server.routes.info import STATIC_FOLDER


@pytest.fixture(scope="module")
def client(server):
    with httpx2.Client(base_url=server.url) as client:
        yield client


def test_the_page_loads_nothing_but_our_own_files(client):
    page = client.get("/docs")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    loaded = re.findall(r'(?:src|<link[^>]* href)="([^"]+)"', page.text)
    assert len(loaded) == 6
    for path in loaded:
        assert "//" not in path
        assert client.get(f"/{path}").status_code == 200
    assert "<script>" not in page.text, "the policy allows no inline script"


def test_the_browser_is_told_to_ask_no_other_host(client):
    policy = client.get("/docs").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "http" not in policy


def test_scripts_and_styles_have_their_types_and_can_be_cached(client):
    script = client.get("/static/swagger-ui/swagger-ui-bundle.js")
    assert script.headers["content-type"].startswith(("text/javascript", "application/javascript"))
    assert client.get("/static/swagger-ui/swagger-ui.css").headers["content-type"].startswith("text/css")
    again = client.get("/static/swagger-ui/swagger-ui.css", headers={"If-None-Match": "x"})
    assert again.status_code == 200
    cached = client.get("/static/swagger-ui/swagger-ui.css", headers={"If-None-Match": again.headers["etag"]})
    assert cached.status_code == 304


def test_the_licence_of_swagger_ui_is_there():
    assert "Apache License" in (STATIC_FOLDER / "swagger-ui" / "LICENSE").read_text()


def test_the_page_opens_this_servers_description(client):
    assert 'url: "openapi.json"' in client.get("/static/docs.js").text
    assert client.get("/openapi.json").json()["openapi"].startswith("3.1")


def test_the_description_has_examples_images_and_problems(client):
    description = client.get("/openapi.json").json()
    generate = description["paths"]["/generate"]["post"]
    body = generate["requestBody"]["content"]["application/json"]
    assert body["examples"]["short"]["value"] == {"prompt": "a cat on a mat, digital art"}
    assert generate["responses"]["200"]["content"].keys() >= {
        "image/png",
        "image/webp",
        "image/jpeg",
        "application/json",
    }
    for status in ("400", "401", "406", "413", "415", "422", "503", "504"):
        assert generate["responses"][status]["content"].keys() == {"application/problem+json"}
    wish = description["components"]["schemas"]["GenerateRequest"]
    assert wish["required"] == ["prompt"]
    assert wish["additionalProperties"] is False
    assert all("description" in field for field in wish["properties"].values())


def test_every_reference_in_the_description_leads_somewhere(client):
    text = client.get("/openapi.json").text
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', text))
    assert "Problem" in references
    assert references <= schemas.keys()


def test_every_example_is_a_request_that_is_drawn(client):
    description = client.get("/openapi.json").json()
    body = description["paths"]["/generate"]["post"]["requestBody"]["content"]["application/json"]
    assert len(body["examples"]) == 3
    for example in body["examples"].values():
        assert client.post("/generate", json=example["value"]).status_code == 200


def test_the_root_tells_what_may_be_asked(client):
    told = client.get("/").json()
    assert told["name"] == "Semantic Bit GPU server"
    assert told["defaults"]["num_inference_steps"] == 28
    assert set(told["samplers"]) >= {"DPMSolver++", "Euler", "Euler a", "DDIM"}
    for path in told["links"].values():
        assert client.get(path).status_code in {200, 405}


def test_health_has_the_specifications_shape(client):
    client.post("/generate", json={"prompt": "wait until it is loaded"})
    told = client.get("/health").json()
    assert told["status"] == "healthy"
    assert told["model_loaded"] is True
    info = told["generator_info"]
    assert info["model_id"] == "fake"
    assert (info["device"], info["dtype"], info["scheduler"]) == ("cpu", "float32", "DPMSolver++")
    assert info["model_loaded"] is True
    assert info["defaults"] == {"steps": 28, "guidance_scale": 7.0, "height": 512, "width": 512}
    assert client.get("/readyz").json() == {"ready": True, "reason": None}
    assert client.get("/livez").json() == {"alive": True}
