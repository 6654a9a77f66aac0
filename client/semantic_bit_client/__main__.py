"""`python -m semantic_bit_client` is `dream`."""

from semantic_bit_client.dream import run

run()
