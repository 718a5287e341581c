"""The resident service: one owner of the ports of this user, with consoles that survive deploys, a page, and a runner.

What its parts share with clients is in `pipeline/client/`. Invariant: nothing here is needed for a right answer; a
service that is killed at any instant costs the live view and nothing else.
"""
