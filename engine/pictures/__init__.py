"""Pictures as numbers before the network sees them and after it has drawn: numpy and Pillow, no torch."""
