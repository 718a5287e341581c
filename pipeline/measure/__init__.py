"""Experiments on whole deploys and builds: benchmarks, baselines, the loop, A/B comparisons."""
