"""Restyle batches in the training step."""
