"""The operator's command line, `python -m server`: what it can do is in `arguments.py`. Imports no torch."""
