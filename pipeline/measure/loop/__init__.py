"""`doit loop`: the warm loop's tests, and the one thing to do next."""
