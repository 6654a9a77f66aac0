"""People: signing up, in and out."""
