"""What the package has: methods, detectors, teachers, configs. A file lists one kind.

Nothing is written down twice: entries come from classes, docstrings and configs.
"""
