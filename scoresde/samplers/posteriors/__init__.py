"""Sample posteriors with a bias that vanishes for small rho or many particles."""
