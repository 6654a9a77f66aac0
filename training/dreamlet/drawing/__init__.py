"""Turns a scene's description into a picture. Knows nothing of captions or networks."""
