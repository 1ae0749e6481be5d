"""``dense-kd distill``: from a folder of images to a distilled student."""
