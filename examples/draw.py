"""Draw one picture and save it. Standard library only.

python3 examples/draw.py "a cat on a mat, digital art" --seed 1 --output cat.png
"""

from __future__ import annotations

import argparse
import json
import sys
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from urllib.parse import urlsplit


def main() -> None:
    """Ask for a picture, save it, and say how to get it again."""
    parser = argparse.ArgumentParser(description="Draw one picture and save it.")
    parser.add_argument("prompt")
    parser.add_argument("--negative-prompt", help="what not to draw")
    parser.add_argument("--steps", type=int, help="denoising steps")
    parser.add_argument("--seed", type=int, help="left out, the server draws one and says which")
    parser.add_argument("--output", type=Path, default=Path("picture.png"), help="(default: picture.png)")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the server (default: http://127.0.0.1:8000)")
    options = parser.parse_args()
    url = urlsplit(options.url)
    if url.scheme not in {"http", "https"} or not url.netloc:
        parser.error(f"--url must be like http://127.0.0.1:8000, not {options.url!r}")

    # A field that is null is the same as one left out.
    body = {
        "prompt": options.prompt,
        "negative_prompt": options.negative_prompt,
        "num_inference_steps": options.steps,
        "seed": options.seed,
    }
    # Longer than the server's REQUEST_TIMEOUT, so that the server is the one to say what happened.
    connection = (HTTPSConnection if url.scheme == "https" else HTTPConnection)(url.netloc, timeout=90)
    headers = {"Content-Type": "application/json", "Accept": "image/png"}
    try:
        connection.request("POST", "/generate", json.dumps(body), headers)
        response = connection.getresponse()
        answer = response.read()
    except OSError as error:
        sys.exit(f"no answer from {options.url}: {error}")
    if response.status != 200:
        # Every error is a problem document: `detail` is for people, `code` for programs.
        problem = json.loads(answer)
        sys.exit(f"{response.status} {problem['code']}: {problem['detail']}")
    options.output.write_bytes(answer)
    print(f"{options.output} (seed {response.headers['X-Seed']}; {response.headers['Server-Timing']})")


if __name__ == "__main__":
    main()
