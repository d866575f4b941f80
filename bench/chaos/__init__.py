"""Chaos: real processes under load while faults happen, and proof that nothing was lost."""

from bench.chaos.report import Report
from bench.chaos.runs import Load, run

__all__ = ["Load", "Report", "run"]
