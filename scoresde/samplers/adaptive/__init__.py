"""Samplers that choose their own steps, and the solvers of scipy and torchsde."""
