"""The routes, a file for each subject. They ask `ImageGenerator` for pictures and know nothing of engines."""
