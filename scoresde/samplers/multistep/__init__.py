"""Sample by exponential multistep methods: an integrator, known methods, and the fast sampler."""
