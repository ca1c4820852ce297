"""Start and end of containers: nothing is left, whatever happens in between."""
