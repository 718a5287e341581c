"""A board through a port: sessions, serial lines, the monitor's reader."""
