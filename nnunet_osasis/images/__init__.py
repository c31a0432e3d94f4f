"""Files to arrays and back, native units to [-1, 1]."""
