"""litellm against the server, in `.venv-clients`. Arguments: its address, a picture. Prints what came, as JSON."""

import json
import sys
from pathlib import Path

import litellm

url, picture = sys.argv[1:]
door = {"api_base": f"{url}/v1", "api_key": "none"}
drawn = litellm.image_generation(
    model="openai/fake", prompt="a cat", n=2, size="64x64", extra_body={"seed": 3, "steps": 2}, **door
)
with Path(picture).open("rb") as file:
    edited = litellm.image_edit(model="openai/gpt-image-1", image=file, prompt="a hat", **door)
refused = None
try:
    litellm.image_generation(model="openai/other", prompt="a cat", **door)
except litellm.NotFoundError as error:
    refused = [type(error).__name__, error.status_code]
sys.stdout.write(
    json.dumps({"drawn": [entry.b64_json for entry in drawn.data], "edited": len(edited.data), "refused": refused})
)
