"""Simulated cameras, scanners and phantoms: images whose true appearance at another site is known."""
