"""Draw several prompts at once: .venv/bin/python examples/client/many_prompts.py."""

import asyncio
import os

from semantic_bit_client import AsyncClient


async def main() -> None:
    """Ask for all of them together; the server decides who is next."""
    async with AsyncClient(os.environ.get("SEMANTIC_BIT_URL", "http://127.0.0.1:8000")) as client:
        pictures = await asyncio.gather(*(client.generate(f"a {colour} bird") for colour in ("red", "blue", "green")))
    print([picture.seed for picture in pictures])


asyncio.run(main())
