"""Results of other machines: the clients behind `[cache] remote`. See docs/shared-cache.md."""
