"""LangChain against the server, in `.venv-clients`. Argument: its address. Prints the addresses that came, as JSON."""

import json
import sys

from langchain_community.utilities.dalle_image_generator import DallEAPIWrapper

tool = DallEAPIWrapper(base_url=f"{sys.argv[1]}/v1", api_key="none", size="64x64", n=2, separator=" ")
sys.stdout.write(json.dumps(tool.run("a cat").split(" ")))
