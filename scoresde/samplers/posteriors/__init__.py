"""Sample from posteriors, and start a run at the mean given a condition."""
