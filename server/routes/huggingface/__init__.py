"""Hugging Face's inference API, for programs that speak it. Errors: `server/dialects/huggingface.py`."""
