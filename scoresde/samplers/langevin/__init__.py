"""Sample by Langevin dynamics: correctors, annealed Langevin, predictor-corrector."""
