"""Which mistakes must the tests find? A file of planted bugs for each area. What runs them is `mutate.py`."""
