"""The answer of `hotplate` from stats alone, when nothing changed."""
