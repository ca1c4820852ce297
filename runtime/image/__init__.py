"""Image store, layers, archives, the built-in base image."""
