"""Picture information: how a picture was drawn, as a text in its file, and back. No pixels, no Pillow, no torch."""
