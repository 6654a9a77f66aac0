"""Which sizes may be asked for: multiples of what a latent of the model stands for, said wherever limits are said."""

from __future__ import annotations

import httpx2
import pytest

from server.config import Settings, StartError
from server.main import create_app
from server.worker.fake_executor import FakeExecutor


@pytest.mark.parametrize(("model_id", "factor"), [("fake", 8), ("fake-16", 16)])
def test_every_place_that_knows_sizes_has_the_model_s_own_rule(serve, model_id, factor):
    server = serve(model_id=model_id)
    assert httpx2.get(server.url).json()["limits"]["size_multiple"] == factor
    request = httpx2.get(f"{server.url}/openapi.json").json()["components"]["schemas"]["GenerateRequest"]
    for field in ("height", "width"):
        whole, _ = request["properties"][field]["anyOf"]
        assert whole["multipleOf"] == factor
        answers = {
            "/generate": httpx2.post(f"{server.url}/generate", json={"prompt": "a cat", field: 256 + factor // 2}),
            "/v1/jobs": httpx2.post(f"{server.url}/v1/jobs", json={"prompt": "a cat", field: 256 + factor // 2}),
            "/v1/queue": httpx2.get(f"{server.url}/v1/queue", params={field: 256 + factor // 2}),
        }
        for path, answer in answers.items():
            entry = {"field": field, "rule": f"must be a multiple of {factor}", "value": 256 + factor // 2}
            assert (answer.status_code, answer.json()["errors"]) == (422, [entry]), path
        assert httpx2.post(f"{server.url}/generate", json={"prompt": "a cat", field: 256 + factor}).status_code == 200


@pytest.mark.parametrize("field", ["default_height", "default_width"])
def test_a_default_size_that_the_model_cannot_draw_ends_the_start_in_one_line(tmp_path, field):
    settings = Settings(_env_file=None, model_id="fake-16", data_dir=tmp_path, **{field: 200})
    with pytest.raises(StartError, match=f"^{field.upper()} must be a multiple of 16 with fake-16, not 200$"):
        create_app(settings, executor=FakeExecutor())
