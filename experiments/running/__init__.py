"""How a run is kept safe: its folder, files, records and checkpoints, requests to stop, devices and processes."""
