"""The service around the engine: HTTP, the queue, the processes that draw. What the gateway loads imports no torch."""
