"""Style transfer in the training step, without a cache of stylized cases."""
