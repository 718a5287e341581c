"""The caller's side of the resident service: its protocol, where it is, and what a run gets from it.

Knows no stage, no device session and nothing of how the service works inside (`pipeline/service/`, which imports from
here what both sides share). Invariant: without a service, or with one of another version, everything that uses this
works alone.
"""
