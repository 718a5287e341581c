"""`doit baseline:*`: how fast this project's loop is on this machine."""
