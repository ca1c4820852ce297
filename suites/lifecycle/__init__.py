"""Start and end of containers, after which no state is left."""
