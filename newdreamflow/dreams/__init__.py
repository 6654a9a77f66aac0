"""Dreams: users' drawing requests, from the form to the picture and its cost. Imports nothing of the site."""
