"""VGG-11 on an accelerator: images a second, peak memory, where the time goes, and how near the machine's limits."""
