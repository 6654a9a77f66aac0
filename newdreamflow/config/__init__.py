"""The site's configuration: settings, URLs, ASGI and Celery apps."""
