"""How a container gets its network: one module per mode, and what they share."""
