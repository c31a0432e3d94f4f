"""The paper's equations: DDIM steps, the diffusion autoencoder, the structure-preserving network."""
