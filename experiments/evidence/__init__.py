"""Evidence on real data: studies of many runs, resumable, and the page that they are rendered into."""
