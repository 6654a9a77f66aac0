"""Requests with pictures: their bodies go to the disk, and a process of its own reads them."""
