"""Storage: jobs, picture files, API keys and usage in one SQLite database and one folder. Knows nothing of HTTP."""
