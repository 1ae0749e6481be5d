"""What a method is (:mod:`.kd_method`), and what several methods share."""
