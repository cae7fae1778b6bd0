"""What the commands of `python -m fusedrnn` share, and those that are a file."""
