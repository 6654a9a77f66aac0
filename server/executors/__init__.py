"""Executors run jobs: in a child process per device, or in this process for tests. All use `messages`."""
