"""Programs that are copied into a folder; nothing here imports them."""
