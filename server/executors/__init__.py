"""Where a job runs: in a child process per device, or in this process for tests. All speak `messages`."""
