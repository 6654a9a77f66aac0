"""Dreams: what users ask to be drawn, from the wish to the picture and its cost. Imports nothing of the site."""
