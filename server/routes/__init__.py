"""HTTP routes, a file for each subject. They use `ImageGenerator` and do not depend on engines."""
