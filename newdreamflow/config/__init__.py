"""How the site is put together: settings, addresses, ASGI and Celery apps."""
