"""How each runtime is driven."""
