"""Jobs from acceptance to their end: queue, dispatcher, attempts, ETA estimates."""
