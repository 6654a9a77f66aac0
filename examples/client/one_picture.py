"""Draw one picture: .venv/bin/python examples/client/one_picture.py."""

import os

from semantic_bit_client import Client

with Client(os.environ.get("SEMANTIC_BIT_URL", "http://127.0.0.1:8000")) as client:
    picture = client.generate("a cat on a mat, digital art", seed=1)
    picture.save("cat.png")
    print(f"cat.png: seed {picture.seed}, {picture.work_units} work units")
