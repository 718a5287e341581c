"""Content-addressed store, action cache, file stamps, state files. Knows nothing of firmware, boards or doit."""
