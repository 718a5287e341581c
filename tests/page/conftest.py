"""Fixtures of the page."""

from tests.page.served import served

__all__ = ["served"]
