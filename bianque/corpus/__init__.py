"""From published consultation sets to dialogues, and from dialogues to training samples."""
