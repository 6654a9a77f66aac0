"""Servers and engines with faults, as `sitecustomize.py` for their processes."""

from __future__ import annotations

from tests.contract.marked_caller import PROMPT

CLUMSY_SERVER = """
import sys

if sys.orig_argv[-2:] == ["server", "serve"]:
    from server.executors.message_executor import MessageExecutor
    from server.generator import ImageGenerator

    async def submit(self, new, *pictures, submit=ImageGenerator.submit):
        if "clumsy" in new.params.prompt:
            raise ValueError("cannot take " + new.params.prompt)
        return await submit(self, new, *pictures)

    async def fumble(job):
        raise ValueError("cannot draw " + job.params.prompt)
        yield

    def run(self, job, run=MessageExecutor.run):
        return fumble(job) if "fumble" in job.params.prompt else run(self, job)

    ImageGenerator.submit = submit
    MessageExecutor.run = run
"""

NO_WEIGHTS = """
import sys

if "server.worker.fake_engine" in sys.orig_argv:
    import time
    from pathlib import Path

    from server.worker.gateway_link import Line
    from server.executors.messages import LoadFailed, Ready

    def send(self, message, send=Line.send):
        if isinstance(message, Ready):
            while not Path("looked-for").exists():
                time.sleep(0.01)
            message = LoadFailed("there are no weights")
        send(self, message)

    Line.send = send
"""

TALKATIVE_ENGINE = f"""
import sys

if "server.worker.engine_process" in sys.orig_argv:
    import torch

    from engine.models.base import EncodedPrompt
    from engine.models.fake import FakeModel

    def cannot_read(self, told, num_chunks=1, read=FakeModel.encode_prompt):
        prompt = told.text
        if {PROMPT!r} not in prompt:
            return read(self, told, num_chunks)
        if "fog" in prompt:
            return EncodedPrompt(read(self, told, num_chunks).attended * float("nan"))
        if "canvas" in prompt:
            raise torch.OutOfMemoryError("injected")
        raise ValueError("cannot read " + prompt)

    FakeModel.encode_prompt = cannot_read
"""
