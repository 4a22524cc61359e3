"""Sample by exponential multistep methods: one integrator, its settings, the fast sampler."""
