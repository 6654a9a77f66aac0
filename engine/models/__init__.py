"""What the engine draws with: the protocol, the fake, Stable Diffusion, and how a model is found and loaded."""
