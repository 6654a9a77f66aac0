"""Everything that a caller can ask, rightly and wrongly, and everything that can go wrong meanwhile."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import httpx2

from server.access.connections import MAX_HEAD_BYTES, MAX_TARGET_BYTES
from tests.chaos.gateway import until
from tests.contract.every_route import new_app, routed
from tests.contract.marked_caller import KEY, NEGATIVE, PROMPT, QUICK, SIMILAR_KEY, SLOW, USER, WISH, Caller
from tests.processes import REPOSITORY
from tests.server.uploads.picture_files import chunk, form_of, png

ROUTES = [tuple(label.replace("*", "GET").split(" ")) for label in sorted(routed(new_app()))]
"""Method and path; those that the OpenAPI document does not tell of, too."""


def ask_everything(caller: Caller) -> None:
    """Every route as it is meant, and every route with a key and a prompt where an id or a value belongs."""
    assert caller.post(QUICK, "/generate").status_code == 200
    job = caller.post(QUICK, headers={"X-API-Key": KEY, "Idempotency-Key": "once"}).json()
    assert caller.ended(job["id"])["status"] == "done"
    caller.ask("GET", f"/v1/jobs/{job['id']}/images/0")
    caller.ask("GET", f"/v1/jobs/{job['id']}/events")
    caller.ask("GET", "/v1/jobs", params={"user": USER})
    caller.post({**WISH, "prompt": f"{PROMPT} again"}, headers={"Idempotency-Key": "once"})
    caller.post(QUICK, f"/v1/jobs/{job['id']}/requeue")
    for method, path in ROUTES:
        for word in (KEY, PROMPT, "0123456789abcdef"):
            filled = re.sub(r"\{\w+\}", word, path)
            for params in ({}, {"api_key": KEY}, {"cursor": KEY}, {"status": KEY, "limit": KEY, "size": KEY}):
                ask_with(caller, method, filled, params)
    for path in (f"/nowhere/{KEY}/{PROMPT}", f"/static/{KEY}/{PROMPT}"):
        ask_with(caller, "GET", path, {})
    ask_with(caller, "DELETE", "/generate", {"prompt": PROMPT})


def ask_with(caller: Caller, method: str, path: str, params: dict[str, str]) -> None:
    caller.ask(method, path, params=params, json=QUICK if method == "POST" else None)


def ask_wrongly(caller: Caller) -> None:
    wrong: list[object] = [
        {"prompt": PROMPT * 1000}, {"prompt": PROMPT + "\x00"}, {"prompt": [PROMPT]}, {"prompt": {PROMPT: PROMPT}},
        {"prompt": PROMPT, "negative_prompt": NEGATIVE * 1000}, {**QUICK, "negative_prompt": 7}, {"promt": PROMPT},
        {**QUICK, "text": NEGATIVE}, {**QUICK, PROMPT: 1}, {**QUICK, KEY: 1}, {**QUICK, "token": KEY}, PROMPT, [PROMPT],
        {**QUICK, "sampler": PROMPT + KEY}, {**QUICK, "width": PROMPT + KEY}, {**QUICK, "width": 63},
        {**QUICK, "user": USER + KEY * 2}, {**QUICK, "noise_schedule": KEY}, {**QUICK, "output_format": KEY},
    ]  # fmt: skip
    for path in ("/generate", "/v1/jobs"):
        for wish in wrong:
            assert caller.post(wish, path).status_code == 422, wish
        headers = {"Content-Type": "application/json"}
        caller.ask("POST", path, content=f'{{"prompt": "{PROMPT}", {NEGATIVE}', headers=headers)
        caller.ask("POST", path, content=f'{{"prompt": "{PROMPT} \xff"}}'.encode("latin-1"), headers=headers)
        caller.ask("POST", path, content=PROMPT.encode(), headers={"Content-Type": "text/plain"})
        caller.ask("POST", path, content=PROMPT.encode() * 2**17, headers=headers)
        assert caller.post({**QUICK, "engine_class": "0" * 16}, path).status_code == 409
    upload_wrongly(caller)
    headers = {"Content-Type": "application/json"}
    caller.ask("POST", "/v1/jobs/0123456789abcdef/requeue", content=PROMPT.encode() * 2**17, headers=headers)
    caller.post(QUICK, "/generate", headers={"Accept": "text/html"})
    caller.post(QUICK, headers={"Idempotency-Key": f"{PROMPT} {KEY}"})


def ask_as_other_programs_do(caller: Caller) -> None:
    """Marks in the fields of other programs' requests, at each of their routes."""
    quick = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "steps": 1, "size": "64x64", "width": 64, "height": 64}
    wishes: list[dict] = [
        {**quick, "auth": f"user:{KEY}", "url": f"http://{KEY}", "user": USER}, {**quick, "sampler_name": KEY},
        {**quick, "prompt": f"{PROMPT} <lora:{KEY}:1>"}, {**quick, "script_name": KEY}, {**quick, "styles": [PROMPT]},
        {**quick, "alwayson_scripts": {KEY: {"args": [True]}, PROMPT: [1]}}, {**quick, "infotext": PROMPT},
        {**quick, "override_settings": {"sd_model_checkpoint": KEY, PROMPT: KEY}}, {**quick, KEY: PROMPT},
        {**quick, "model": KEY}, {**quick, "steps": KEY}, {**quick, "init_images": [PROMPT]}, {**quick, "image": KEY},
        {"inputs": PROMPT, "parameters": {KEY: 1}}, {"inputs": [PROMPT]},
        {"inputs": KEY, "parameters": {"prompt": NEGATIVE}},
        {"sd_model_checkpoint": KEY}, {"samples_format": PROMPT}, {"id_task": KEY}, {"images": [{"image_url": KEY}]},
    ]  # fmt: skip
    app = new_app()
    paths = [
        path for method, path in ROUTES if method == "POST" and any(d.speaks(method, path) for d in app.state.dialects)
    ]
    assert len(paths) > 10
    for path in paths:
        for wish in wishes:
            caller.post(wish, path.replace("{model_id}", "fake-engine"))
            caller.post(wish, f"{path.replace('{model_id}', KEY)}?{PROMPT}=1")


def upload_wrongly(caller: Caller) -> None:
    """Marks in pictures, beside them and in their names."""
    form = {"Content-Type": "multipart/form-data; boundary=b0undary"}
    marks = f"{PROMPT} {KEY}".encode()
    text = base64.b64encode(marks).decode()
    for path in ("/generate", "/v1/jobs", "/v1/upscale"):
        for image in (PROMPT, KEY, f"http://{KEY}/{PROMPT}", f"data:{PROMPT},{KEY}", text, [PROMPT], {PROMPT: KEY}):
            caller.post({**QUICK, "image": image}, path)
        for files in ({"image": marks}, {PROMPT: marks}, {KEY: marks}, {"image": png(), "mask": marks}):
            caller.ask("POST", path, content=form_of(QUICK, files), headers=form)
        caller.ask("POST", path, content=form_of(QUICK, {"image": marks * 2**19}), headers=form)
        caller.ask("POST", path, content=form_of(QUICK, {"image": png()})[:-9], headers=form)
        foreign = {**form, "Origin": f"https://{PROMPT.replace(' ', '-')}.example"}
        caller.ask("POST", path, content=form_of(QUICK, {"image": png()}), headers=foreign)
    for image in (PROMPT, KEY, text, [PROMPT]):
        caller.post({"image": image, PROMPT: KEY}, "/v1/image-info")
    caller.ask("POST", "/v1/image-info", content=form_of(QUICK, {PROMPT: marks}), headers=form)
    told = png()[:33] + chunk(b"tEXt", b"parameters\0" + marks) + png()[33:]
    assert caller.ask("POST", "/v1/image-info", content=told, headers={"Content-Type": "image/png"}).status_code == 200
    assert caller.post({**QUICK, "strength": 1.0, "image": base64.b64encode(png()).decode()}).status_code == 202


def ask_what_is_no_request(caller: Caller) -> None:
    marks = f"{PROMPT} {KEY} ".encode()
    long = marks.replace(b" ", b"/") * (MAX_TARGET_BYTES // len(marks) + 1)
    many = marks * (MAX_HEAD_BYTES // len(marks) + 1)
    assert caller.listen(caller.begin(marks + b"\r\n\r\n")) == 400
    assert caller.listen(caller.begin(b"GET /%s HTTP/1.1\r\n\r\n" % long)) == 414
    assert caller.listen(caller.begin(b"GET / HTTP/1.1\r\nX-Prompt: %s\r\n\r\n" % many)) == 431


def present_wrong_keys(caller: Caller) -> None:
    for key in (SIMILAR_KEY, KEY[:-1], "sb_live_marmalade-badger"):
        caller.ask("POST", "/generate", json=QUICK, headers={"Authorization": f"Bearer {key}"})
        caller.ask("GET", "/v1/queue", headers={"Authorization": f"Basic {key}", "X-API-Key": key})
        caller.ask("GET", f"/v1/jobs/{key}", params={"key": key}, headers={"Authorization": key})


def use_made_keys(caller: Caller, folder: Path) -> None:
    """A key of the store, and the one that a rotation makes of it."""
    environment = {**os.environ, "DATA_DIR": str(folder / "data"), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "server", "keys"]

    def run(*arguments: str) -> str:
        asked = subprocess.run([*command, *arguments], cwd=folder, env=environment, capture_output=True, check=True)
        return asked.stdout.decode().strip()

    text = run("create", "--name", "canary")
    rotated = run("rotate", json.loads(run("list", "--json"))[0]["id"])
    for key in (text, rotated):
        caller.secrets.append(key.rpartition("_")[2])
        assert caller.post(QUICK, headers={"Authorization": f"Bearer {key}"}).status_code == 202
        caller.ask("GET", f"/v1/jobs/{key}", params={"key": key})
        caller.post({**QUICK, "user": key + USER, "negative_prompt": [key]}, "/generate")


def operate(caller: Caller) -> None:
    """What the command line asks over its own socket, rightly and wrongly."""
    made = caller.operate("POST", "/v1/keys", {"name": "watcher", "scopes": ["read"]})
    caller.secrets.append(made["text"].rpartition("_")[2])
    assert caller.post(QUICK, headers={"Authorization": f"Bearer {made['text']}"}).status_code == 403
    caller.operate("POST", f"/v1/keys/{made['id']}/revoke")
    for key_id in (made["id"], "0" * 12, KEY):
        caller.operate("POST", f"/v1/keys/{key_id}/rotate", {"grace_hours": 1})
        caller.operate("POST", f"/v1/keys/{key_id}/rotate", {"grace_hours": PROMPT, KEY: PROMPT})
    for wish in (
        {"name": [KEY], "scopes": [PROMPT, KEY]},
        {"name": KEY * 2, "scopes": KEY, PROMPT: KEY},
        [KEY],
        PROMPT,
    ):
        caller.operate("POST", "/v1/keys", wish)
    assert len(caller.operate("GET", "/v1/keys")["keys"]) == 2
    assert PROMPT.encode() in caller.operate("GET", "/v1/backup"), "it is the operator's"


def lose_engines(caller: Caller) -> None:
    """A prompt that kills every engine it meets, and one that makes them hang until somebody cancels."""
    poison = caller.post({**QUICK, "prompt": f"{PROMPT} poison"}).json()["id"]
    assert caller.ended(poison, 40)["status"] == "dead"
    caller.server.wait_until_ready()
    hanging = caller.post({**QUICK, "prompt": f"{PROMPT} hang"}).json()["id"]
    until(lambda: caller.ask("GET", f"/v1/jobs/{hanging}").json()["attempt"] >= 2, 20, "a second attempt")
    caller.post({}, f"/v1/jobs/{hanging}/cancel")
    caller.server.wait_until_ready()


def lose_patience(caller: Caller) -> None:
    """A caller that hangs up, and one for whom it takes too long."""
    with contextlib.suppress(httpx2.TimeoutException):
        caller.post(SLOW, "/generate", timeout=0.5)
    assert caller.post(SLOW, "/generate").status_code == 504
    caller.server.wait_until_ready()


def fill_the_queue(caller: Caller) -> None:
    """As many jobs as may wait, and one more; then none."""
    jobs: list[str] = []
    while (answer := caller.post(SLOW, headers={"Idempotency-Key": f"slow-{len(jobs)}"})).status_code == 202:
        jobs.append(answer.json()["id"])
    assert answer.json()["code"] == "queue_full"
    assert caller.ask("GET", f"/v1/jobs/{jobs[-1]}/images/0").status_code == 409
    for job_id in jobs:
        caller.post({}, f"/v1/jobs/{job_id}/cancel")
    assert caller.post(SLOW, "/generate", headers={"Idempotency-Key": "slow-0"}).status_code == 409


def find_mistakes(caller: Caller, folder: Path) -> None:
    """Errors that nobody foresaw, with the prompt in them, and a picture that is gone."""
    assert caller.post({**QUICK, "prompt": f"{PROMPT} clumsy"}).status_code == 500
    fumbled = caller.post({**QUICK, "prompt": f"{PROMPT} fumble"}).json()["id"]
    assert caller.ended(fumbled)["error"]["code"] == "internal_error"
    drawn = caller.post(QUICK).json()["id"]
    caller.ended(drawn)
    [picture] = (folder / "data" / "server" / "results").glob(f"*/{drawn}.0")
    picture.unlink()
    assert caller.ask("GET", f"/v1/jobs/{drawn}/images/0").status_code == 410


def fill_the_disk(caller: Caller) -> None:
    """No write of the server succeeds: what a full disk does. Its log goes through a pipe."""
    unlimited = resource.RLIM_INFINITY
    resource.prlimit(caller.server.process.pid, resource.RLIMIT_FSIZE, (0, unlimited))
    until(lambda: caller.post(QUICK).status_code == 503, 10, "refused")
    resource.prlimit(caller.server.process.pid, resource.RLIMIT_FSIZE, (unlimited, unlimited))
    until(caller.server.is_ready, 10, "ready again")


def drain(caller: Caller) -> None:
    """Whoever comes while the last job is drawn."""
    last = caller.post(SLOW).json()["id"]
    until(lambda: caller.ask("GET", f"/v1/jobs/{last}").json()["status"] == "running", 10, "running")
    caller.server.process.send_signal(signal.SIGTERM)
    until(lambda: caller.post(QUICK).status_code == 503, 5, "refused")
    caller.post({}, f"/v1/jobs/{last}/cancel")
    assert caller.server.process.wait(20) == 0
