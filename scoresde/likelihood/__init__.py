"""Compute likelihoods with error bars, bits per dimension, and latents of the probability flow."""

from scoresde.likelihood.bits import TRANSFORMS, Dequantization, bits_per_dim, importance_bound
from scoresde.likelihood.bound import elbo
from scoresde.likelihood.densities import log_prob, sample_with_log_prob
from scoresde.likelihood.heat import heat_correction
from scoresde.likelihood.latent_bound import latent_elbo
from scoresde.likelihood.latents import decode, encode, slerp
from scoresde.likelihood.prior import read_moments
from scoresde.likelihood.result import LogProb, effective_sample_size

__all__ = [
    "TRANSFORMS",
    "Dequantization",
    "LogProb",
    "bits_per_dim",
    "decode",
    "effective_sample_size",
    "elbo",
    "encode",
    "heat_correction",
    "importance_bound",
    "latent_elbo",
    "log_prob",
    "read_moments",
    "sample_with_log_prob",
    "slerp",
]
