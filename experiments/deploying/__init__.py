"""Deploying a run: its integer network, the cost in accuracy, bytes and time, and the files."""
