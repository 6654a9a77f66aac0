"""Where networks run: torch on any device, OpenVINO on CPUs. Knows nothing of models, samplers or batches."""
