"""Samplers of posteriors, and the start of a run under a condition."""
