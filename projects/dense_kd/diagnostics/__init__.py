"""What happens between teacher and student in a pass or a run, as numbers and arrays."""
