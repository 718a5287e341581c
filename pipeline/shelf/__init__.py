"""Boards as a stock: which there are, and which are new."""
