"""Programs to copy from. A package so that `engine.py` here is not taken for the package `engine`."""
