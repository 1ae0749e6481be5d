"""A step that went wrong, kept in a file, and run again from it: ``dense-kd replay``."""
