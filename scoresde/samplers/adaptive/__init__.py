"""Sample with adaptive steps, and with the solvers of scipy and torchsde."""
