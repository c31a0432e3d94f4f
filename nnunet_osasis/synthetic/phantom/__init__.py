"""Parts of the two-scanner phantom: band-limited noise, scene geometry, shading, cameras."""
