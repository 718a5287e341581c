"""Live tests: what a running device answers, on a board, on a virtual board and as a process of this machine."""
