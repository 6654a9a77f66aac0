"""The diffusion engine: many requests, one model, one step at a time. Knows nothing of HTTP or the environment.

Importing this package imports no torch; `engine.engine` and `engine.models` do.
"""
