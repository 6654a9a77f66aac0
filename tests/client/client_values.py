"""Values that several tests of the client use."""

from semantic_bit_client import Retries

QUICK = Retries(first_s=0.01, most_s=0.05)

SMALL = {"num_inference_steps": 2, "height": 64, "width": 64}

PNG = b"\x89PNG\r\n\x1a\n"
