"""The documentation carried out: what it shows is what comes out."""
