"""What to do with a GPU for 25 minutes: the plan, and a run that can be cut at any moment and goes on."""
