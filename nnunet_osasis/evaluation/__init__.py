"""Does stylization help here? Experiments with controls, leak checks, paired statistics and a plain verdict."""
