"""Experiments and benchmarks: each file states a claim, runs by one command, and checks itself."""
