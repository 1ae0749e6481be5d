"""Box codes: deltas, distances, and distributions over distances."""
