"""Reports, and every other rendering of a run's events. Pure but for the terminal."""
