"""What the APIs of other programs share: their door, and a job for each of their requests."""
