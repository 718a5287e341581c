"""The world behind protocols: clock, processes, this machine, run logs."""
