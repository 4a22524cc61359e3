"""Stored models: descriptions, files, cards, and the Hugging Face Hub; no code is run."""
