"""Draw with OpenAI's own client: `pip install openai`."""

import base64
import os
from pathlib import Path

from openai import OpenAI

client = OpenAI(base_url=os.environ["SEMANTIC_BIT_URL"] + "/v1", api_key=os.environ.get("SEMANTIC_BIT_KEY", "none"))
answer = client.images.generate(model="gpt-image-1", prompt="a cat on a mat", size="512x512", extra_body={"seed": 1})
Path("cat.png").write_bytes(base64.b64decode(answer.data[0].b64_json))
print("cat.png:", answer.size)
