"""The template of all detectors, their towers, and what they check alike."""
