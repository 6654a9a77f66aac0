"""The renderer: draws the picture of a scene. No captions, no networks."""
