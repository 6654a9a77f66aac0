"""Watch four pictures being drawn: .venv/bin/python examples/client/watch_a_job.py."""

import os

from semantic_bit_client import Client

with Client(os.environ.get("SEMANTIC_BIT_URL", "http://127.0.0.1:8000")) as client:
    job = client.submit("a lighthouse at night", num_images=4, user="ada")
    for progress in job.events():
        print(progress.status, f"{progress.step}/{progress.steps}")
    for picture in job.images():
        picture.save(f"lighthouse-{picture.seed}.png")
