"""Driving the pure generators: files, clock, signals and progress."""
