"""Fewer bytes for an update: thresholds, residuals, encoders and the kernels under them."""
