"""Access control: authentication, scopes, rate limits, size limits, timeouts, TLS, proxies."""
