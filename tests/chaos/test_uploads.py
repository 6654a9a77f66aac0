"""Uploads that are hostile, many, cut off by kill -9 or a full disk: the server goes on, nothing is lost or left."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import random
import resource
import sqlite3
import struct
import sys
import time
import zlib
from collections import Counter
from pathlib import Path

import httpx2
import numpy as np
from PIL import Image

from server.store.database import DATABASE_NAME
from tests.chaos.gateway import Gateway, gateway, needs_proc, percentile, until
from tests.server.uploads.picture_files import bomb, chunk, form_of, png, png_of, saved

FORM = {"Content-Type": "multipart/form-data; boundary=b0undary"}
WISH = {"prompt": "a cat", "num_inference_steps": 1, "height": 64, "width": 64, "strength": 1.0}
SETTINGS = {"MODEL_ID": "fake-engine:1", "MAX_QUEUED_REQUESTS": "100000", "LOG_LEVEL": "warning"}
MEMORY_MIB = 100
BUSY_MEMORY_MIB = 160
"""What 20 large uploads at once may take. The goal is 100: 98 were measured alone, 122 on a busy machine."""


def memory_mib(server: Gateway, name: str = "VmRSS") -> float:
    """What the gateway has in memory, without its children."""
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    [line] = [line for line in lines if line.startswith(f"{name}:")]
    return int(line.split()[1]) / 1024


def warm_up(server: Gateway) -> None:
    """Let the process that reads uploads be started."""
    body = form_of(WISH, {"image": png(64, 64)})
    answer = server.client.post(f"{server.url}/v1/jobs", content=body, headers=FORM, timeout=90)
    assert answer.status_code == 202, answer.text


def hostile_files(chance: random.Random) -> list[bytes]:
    """Bombs, lies and nonsense, each of a kind of its own."""
    header = struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)
    good = png(64, 64)
    frames = [Image.new("RGB", (64, 64), (number, 0, 0)) for number in range(20)]
    many = {"save_all": True, "append_images": frames[1:]}
    large = Image.new("RGB", (4096, 4096))
    return [
        *(bomb(*size) for size in ((60_000, 1), (1, 60_000), (50_000, 50_000), (2**31 - 1,) * 2, (0, 0), (4096, 1))),
        saved(frames[0], "PNG", **many),
        saved(frames[0], "WEBP", **many),
        saved(frames[0], "GIF", **many),
        saved(large, "PNG"),
        saved(large, "JPEG", progressive=True),
        saved(Image.new("RGBA", (4096, 4096)), "PNG"),
        saved(large.convert("CMYK"), "JPEG"),
        saved(large.convert("P"), "PNG"),
        good[:33] + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**27))) + good[33:],
        good[:33] + chunk(b"tEXt", b"parameters\0" + b"x" * 8 * 2**20) + good[33:],
        good[:33] + chunk(b"iTXt", b"x\0\1\0\0\0" + zlib.compress(bytes(2**26))) * 10 + good[33:],
        good[:33] + chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(2**27))) + good[33:],
        good[:33] + chunk(b"eXIf", b"MM\0*" + b"\xff" * 60_000) + good[33:],
        png_of(header, *(chunk(b"IDAT", b"") for _ in range(100_000))),
        png_of(header, chunk(b"IDAT", zlib.compress(bytes(2**28)))),
        png_of(header),
        png_of(header) * 100,
        good + bytes(2**20),
        b"\xff\xd8\xff" + b"\xff\xe1\xff\xff" * 100_000,
        b"\xff\xd8\xff\xe1\x00\x10Exif\0\0MM\0*" + b"\0\0\0\x08" * 1000,
        b"RIFF\xff\xff\xff\xffWEBPVP8X\x0a\0\0\0" + b"\xff" * 1000,
        b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff\xff\xff" * 2,
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7\n",
        b"GIF89a",
        b"BM" + bytes(100),
        b"\0\0\0\x18ftypheic" + bytes(1000),
        chance.randbytes(2**16),
        b"",
    ]  # fmt: skip


def mutated(data: bytes, chance: random.Random) -> bytes:
    """A good file, a little worse."""
    worse = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 5, 50))):
        if not worse:
            break
        at = chance.randrange(len(worse))
        match chance.randrange(5):
            case 0:
                worse[at] ^= 1 << chance.randrange(8)
            case 1:
                worse[at : at + 4] = chance.randbytes(4)
            case 2:
                del worse[at : at + chance.randrange(1, 20)]
            case 3:
                worse[at:at] = worse[at : at + chance.randrange(1, 100)]
            case 4:
                worse = worse[: max(20, at)]
    return bytes(worse)


@needs_proc
def test_hostile_and_mutated_pictures_are_answered_and_the_next_request_is_as_ever(tmp_path, rounds, report):
    chance = random.Random(17)
    colours = Image.fromarray(np.random.default_rng(1).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    seeds = [
        *(saved(colours, picture_format) for picture_format in ("PNG", "JPEG", "WEBP")),
        saved(colours, "JPEG", progressive=True),
        saved(colours, "WEBP", lossless=True),
        saved(colours.convert("RGBA"), "WEBP"),
        saved(colours.convert("CMYK"), "JPEG"),
        saved(colours.convert("LA"), "PNG"),
        saved(colours.quantize(8), "PNG"),
    ]
    num_files = rounds(300, 2000)
    files = hostile_files(chance)
    files += [mutated(chance.choice(seeds), chance) for _ in range(num_files - len(files))]
    statuses: Counter[int] = Counter()
    seconds = []
    with gateway(tmp_path, command=None, **SETTINGS) as server:
        warm_up(server)
        before = memory_mib(server)
        for number, data in enumerate(files):
            body, headers = form_of(WISH, {"image": data}), FORM
            if number % 3 == 0 and len(data) < 2**20:
                body = json.dumps({**WISH, "image": base64.b64encode(data).decode()}).encode()
                headers = {"Content-Type": "application/json"}
            began = time.monotonic()
            answer = server.client.post(f"{server.url}/v1/jobs", content=body, headers=headers, timeout=90)
            seconds.append(time.monotonic() - began)
            statuses[answer.status_code] += 1
            assert answer.status_code in {202, 415, 422, 413}, (number, answer.text)
        grown = memory_mib(server, "VmHWM") - before
        assert server.ended(server.submit()["id"])["status"] == "done"
    figure = f"{dict(statuses)}, slowest {max(seconds):.1f} s, gateway +{grown:.0f} MiB"
    report(f"{num_files} hostile and mutated pictures", figure, f"no 500, no hang, <= {MEMORY_MIB} MiB")
    assert grown <= MEMORY_MIB
    assert max(seconds) < 60


@needs_proc
async def test_20_large_uploads_at_once_leave_room_for_others(tmp_path, report):
    """The goals are for a machine with cores to spare: what is asserted is that nobody stands still or takes it all."""
    noise = np.random.default_rng(2).integers(0, 256, (2300, 2400, 3), dtype=np.uint8)
    data = saved(Image.fromarray(noise), "PNG")
    assert 15.5 * 2**20 < len(data) <= 16 * 2**20
    body = form_of(WISH, {"image": data})
    with gateway(tmp_path, command=None, **SETTINGS) as server:
        warm_up(server)
        before = memory_mib(server)
        asked = asyncio.Event()
        waits_s: list[float] = []

        async def watch(client: httpx2.AsyncClient) -> None:
            while not asked.is_set():
                began = time.monotonic()
                assert (await client.get("/health")).status_code == 200
                waits_s.append(time.monotonic() - began)
                await asyncio.sleep(0.02)

        (tmp_path / "body").write_bytes(body)
        # By another process: this one would keep itself from asking.
        command = [sys.executable, "-c", _UPLOADER, f"{server.url}/v1/jobs", tmp_path / "body", FORM["Content-Type"]]
        async with httpx2.AsyncClient(base_url=server.url, timeout=60) as client:
            watching = asyncio.create_task(watch(client))
            uploading = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
            told, _ = await uploading.communicate()
            asked.set()
            await watching
        statuses = Counter(json.loads(told))
        grown = memory_mib(server, "VmHWM") - before
    figure = f"{dict(statuses)}, p95 {percentile(waits_s, 95):.3f} s, longest {max(waits_s):.3f} s, +{grown:.0f} MiB"
    report("20 uploads of 16 MiB at once: /health", figure, "<= 0.1 s, <= 100 MiB")
    assert statuses == {202: 20}
    assert grown <= BUSY_MEMORY_MIB
    assert max(waits_s) < 2


async def test_a_killed_gateway_loses_no_job_with_a_picture_and_leaves_no_picture_without_a_job(
    tmp_path, rounds, report
):
    chance, num_rounds = random.Random(3), rounds(10, 200)
    acknowledged: dict[str, str] = {}
    unanswered: list[int] = []
    numbers = itertools.count()

    async def post(client: httpx2.AsyncClient, number: int) -> None:
        body = form_of(WISH, {"image": png(64, 64, seed=number % 50)})
        answer = await client.post("/v1/jobs", content=body, headers={**FORM, "Idempotency-Key": f"wish-{number}"})
        assert answer.status_code in {200, 202}, answer.text
        acknowledged[f"wish-{number}"] = answer.json()["id"]

    async def post_until_it_dies(url: str) -> None:
        async with httpx2.AsyncClient(base_url=url, timeout=60) as client:
            for number in numbers:
                try:
                    await post(client, number)
                except httpx2.TransportError:
                    unanswered.append(number)
                    return

    for _ in range(num_rounds):
        with gateway(tmp_path, command=None, waits=False, **SETTINGS) as server:
            wanted = len(acknowledged) + 5
            posting = asyncio.gather(*(post_until_it_dies(server.url) for _ in range(4)))
            while len(acknowledged) < wanted:
                await asyncio.sleep(0.005)
            await asyncio.sleep(chance.uniform(0, 0.1))
            server.kill()
            await posting
    with gateway(tmp_path, command=None, **SETTINGS) as server:
        named = _named_inputs(tmp_path)
        assert _inputs(tmp_path) == named, "each picture that is named is there, and no other"
        async with httpx2.AsyncClient(base_url=server.url, timeout=60) as client:
            for number in unanswered:
                await post(client, number)
        server.wait_until_idle(60)
        jobs = [server.job(job_id) for job_id in acknowledged.values()]
        assert {job["status"] for job in jobs} == {"done"}
    with gateway(tmp_path, command=None, KEEP_RESULTS_HOURS="0.0000001", **SETTINGS):
        until(lambda: not _inputs(tmp_path), 10, "without a picture whose jobs are over")
    figure = f"{len(acknowledged)} acknowledged, 0 lost, 0 pictures left"
    report(f"kill -9 while uploads are accepted, {num_rounds} rounds", figure, "none lost, none left")


def test_no_write_that_succeeds_while_uploads_come_leaves_nothing(tmp_path, report):
    with gateway(tmp_path, pipes_log=True, **SETTINGS) as server:
        unlimited = resource.RLIM_INFINITY
        body = form_of(WISH, {"image": png(256, 256)})

        def upload() -> int:
            return server.client.post(f"{server.url}/v1/jobs", content=body, headers=FORM, timeout=90).status_code

        assert upload() == 202
        server.wait_until_idle(10)
        before = _inputs(tmp_path)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (0, unlimited))
        statuses = Counter(upload() for _ in range(5))
        assert statuses == {503: 5}
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (unlimited, unlimited))
        until(lambda: server.get("/v1/queue").json()["accepting"], 5, "accepting again")
        assert _inputs(tmp_path) == before
        assert upload() == 202
    report("no writes possible while uploads come", "5 refused, nothing left", "503, nothing left")


_UPLOADER = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import httpx2

url, body, content_type = sys.argv[1], Path(sys.argv[2]).read_bytes(), sys.argv[3]

def upload(_):
    return httpx2.post(url, content=body, headers={"Content-Type": content_type}, timeout=300).status_code

with ThreadPoolExecutor(20) as threads:
    print(json.dumps(list(threads.map(upload, range(20)))))
"""


def _inputs(folder: Path) -> set[str]:
    return {path.name for path in (folder / "data" / "server" / "inputs").iterdir()}


def _named_inputs(folder: Path) -> set[str]:
    """By a look at the files of a server that is asked nothing meanwhile; its log is not yet in its database's file."""
    data = folder / "data" / "server"
    names = {path.name: path.read_bytes() for path in data.glob(f"{DATABASE_NAME}*")}
    copy = folder / "look"
    copy.mkdir()
    for name, content in names.items():
        (copy / name).write_bytes(content)
    with contextlib.closing(sqlite3.connect(copy / DATABASE_NAME)) as connection:
        return {f"{sha256}.png" for (sha256,) in connection.execute("SELECT DISTINCT sha256 FROM job_inputs")}
