"""The networks of Stable Diffusion 1, 2 and XL in readable files; parameters are named as in diffusers' files."""
