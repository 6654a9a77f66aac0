"""What a device's limits are, and what the parts of drawing a picture take of them; for `benchmarks/gpu.py`."""
