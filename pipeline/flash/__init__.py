"""What goes where in flash, and what must be written. Pure."""
