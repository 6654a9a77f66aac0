"""Draw one prompt with many seeds, to choose from. Standard library only.

python3 examples/many_seeds.py "a cat on a mat, digital art" --count 12 --folder cats
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

MOST_AT_ONCE = 8
"""Pictures that one request may ask for."""


def main() -> None:
    """Ask for the pictures, eight a request, and save each under its seed."""
    parser = argparse.ArgumentParser(description="Draw one prompt with many seeds.")
    parser.add_argument("prompt")
    parser.add_argument("--count", type=int, default=8, help="how many pictures (default: 8)")
    parser.add_argument("--first-seed", type=int, default=1, help="the others follow (default: 1)")
    parser.add_argument("--folder", type=Path, default=Path("pictures"), help="(default: pictures)")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the server (default: http://127.0.0.1:8000)")
    options = parser.parse_args()
    url = urlsplit(options.url)
    if url.scheme not in {"http", "https"} or not url.netloc:
        parser.error(f"--url must be like http://127.0.0.1:8000, not {options.url!r}")

    options.folder.mkdir(parents=True, exist_ok=True)
    for done in range(0, options.count, MOST_AT_ONCE):
        num_images = min(MOST_AT_ONCE, options.count - done)
        for seed, file in draw(url, options.prompt, options.first_seed + done, num_images):
            path = options.folder / f"{seed}.png"
            path.write_bytes(file)
            print(path)


def draw(url: SplitResult, prompt: str, seed: int, num_images: int) -> list[tuple[int, bytes]]:
    """Draw pictures with the seeds `seed`, `seed + 1`, ...; each is the same as if it had been asked for alone.

    Returns:
        Seed and PNG file of each.

    Raises:
        SystemExit: the server refused, or did not answer; one line.
    """
    body = {"prompt": prompt, "seed": seed, "num_images": num_images}
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    connection = (HTTPSConnection if url.scheme == "https" else HTTPConnection)(url.netloc, timeout=90)
    try:
        connection.request("POST", "/generate", json.dumps(body), headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
    except OSError as error:
        sys.exit(f"no answer from {url.geturl()}: {error}")
    if response.status != 200:
        sys.exit(f"{response.status} {answer['code']}: {answer['detail']}")
    return [(image["seed"], base64.b64decode(image["b64"])) for image in answer["images"]]


if __name__ == "__main__":
    main()
