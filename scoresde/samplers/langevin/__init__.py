"""Sample by Langevin dynamics: correctors, annealed Langevin dynamics, predictor-corrector."""
