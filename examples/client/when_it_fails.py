"""Tell a wrong request from a server that is away: .venv/bin/python examples/client/when_it_fails.py."""

import os

from semantic_bit_client import Client, InvalidRequest, ServerUnavailable

with Client(os.environ.get("SEMANTIC_BIT_URL", "http://127.0.0.1:8000")) as client:
    try:
        client.generate("a cat", width=63)
    except InvalidRequest as error:
        print([(wrong.field, wrong.rule, wrong.value) for wrong in error.wrong_values])
    except ServerUnavailable as error:
        print("try again later:", error)
