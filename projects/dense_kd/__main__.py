"""``python -m dense_kd``: ``dense-kd``, where it is not on the path."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
