"""Experiments and benchmarks: each file states a claim, runs by one command, and checks itself.

python -m experiments.NAME [--quick]      one of them; --quick is its reduced form
python -m experiments                     all of them in their reduced forms: `make experiments`
"""
