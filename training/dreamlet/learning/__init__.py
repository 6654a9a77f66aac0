"""The training loop of all networks: optimisers, schedule, checkpoints. Independent of pictures and captions."""
