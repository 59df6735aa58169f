"""A run leaves JAX: its network in whole numbers, what that costs in accuracy, bytes and time, and the files."""
