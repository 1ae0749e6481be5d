"""What a distillation costs: its parts timed side by side, and counted on a pretended GPU."""
