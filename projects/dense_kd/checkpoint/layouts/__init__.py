"""How other projects name and store what a checkpoint holds, and what that is here."""
