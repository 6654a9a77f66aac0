"""The operator's command line, `python -m server`: its commands are in `arguments.py`. Imports no torch."""
