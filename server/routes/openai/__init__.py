"""OpenAI's Images API, for programs that speak it. Errors: `server/dialects/openai.py`."""
