"""Accepted requests on their way to an engine: what a job is, who waits, and how long it will take."""
