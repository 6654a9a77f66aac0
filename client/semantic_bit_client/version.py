"""Which release of the client this is."""

VERSION = "0.1.0"
