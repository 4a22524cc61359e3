"""Read, describe and upload model files, without running code from them."""
