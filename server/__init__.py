"""The service around the engine: HTTP, the queue, and the processes that draw. Nothing the gateway loads imports torch."""
