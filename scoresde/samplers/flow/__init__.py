"""Sample with fixed steps: predictors for the reverse SDE, solvers for the probability flow."""
