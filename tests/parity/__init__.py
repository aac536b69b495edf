"""Parity: is a rule what others call by that name?"""
