"""What keeps a run safe: its folder, files, records and checkpoints, its request to stop, its devices and processes."""
