"""Samplers of posteriors whose bias can be made as small as one likes."""
