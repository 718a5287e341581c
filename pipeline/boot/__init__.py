"""What a boot says: lines in, marks and verdicts out. Pure."""
