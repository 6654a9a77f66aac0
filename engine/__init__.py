"""The diffusion engine: many requests, one model, one step at a time. No HTTP, no environment variables.

Importing this package imports no torch; `engine.engine` and `engine.models` do.
"""
