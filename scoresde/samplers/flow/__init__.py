"""Samplers of fixed steps: predictors of the reverse SDE, and solvers of the probability flow."""
