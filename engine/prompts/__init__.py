"""The prompt language: what a prompt says, step by step and word by word. Only `encoder` needs torch."""
