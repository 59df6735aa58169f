"""The experiments: one command a result."""
