"""Sample with fixed steps: predictors of the reverse SDE, solvers of the probability flow."""
