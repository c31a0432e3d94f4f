"""One-shot adaptation of the decoder to the reference: steps, losses, embedders, selection."""
