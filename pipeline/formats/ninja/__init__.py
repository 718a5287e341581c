"""Ninja's own files: the manifest language, dyndep files, `.ninja_log` and `.ninja_deps`."""
