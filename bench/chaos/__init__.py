"""Chaos: real processes under load while faults happen, and proof that nothing was lost."""
