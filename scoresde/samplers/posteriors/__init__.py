"""Sample posteriors, and start a run under a condition."""
