"""Saving to disk with Orbax: what is saved comes back bit for bit, or its damage is found."""
