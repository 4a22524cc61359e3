"""Exponential multistep methods: one integrator, its settings, and the fast sampler."""
