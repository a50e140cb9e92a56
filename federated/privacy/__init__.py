"""What a run reveals: accounting."""
