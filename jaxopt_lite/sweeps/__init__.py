"""Sweeps: many trainings in one compiled program, from a space of configs and a sampler of its points."""
