"""AUTOMATIC1111's API (`/sdapi/v1`), for programs that speak it. Errors: `server/dialects/a1111.py`."""
