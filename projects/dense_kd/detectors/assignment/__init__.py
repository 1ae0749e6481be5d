"""Assigners: which predictions are responsible for which ground-truth box."""
