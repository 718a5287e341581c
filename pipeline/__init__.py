"""From firmware sources to proof from the running device."""

__version__ = "0.1.0"
"""Of the program, as in pyproject.toml: part of each line of the history."""
