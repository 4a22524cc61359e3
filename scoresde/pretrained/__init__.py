"""Read, describe and share files of models, without running code from them."""
