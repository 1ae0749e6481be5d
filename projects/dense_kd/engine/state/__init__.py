"""The state of a run: what its folder and its checkpoints hold, and what resuming restores."""
