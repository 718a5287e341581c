"""Ways to build: one file per toolchain, and the actions that they make."""
