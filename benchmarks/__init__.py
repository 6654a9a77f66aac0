"""How fast, how soon, how large: one script a question, started as `python -m benchmarks.NAME`. See README.md."""
