"""`doit bench`: ours beside a peer, as ratios within one run."""
