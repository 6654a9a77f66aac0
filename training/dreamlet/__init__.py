"""dreamlet, the built-in model: scenes drawn by program, and the networks trained on them."""
