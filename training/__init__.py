"""How the models that ship with this project were made."""
