"""Benchmarks: memory, speed and size of training, each one script that writes a JSON file."""
