"""The action engine: which actions are up to date, and how the others become so. Knows nothing of firmware or doit."""
