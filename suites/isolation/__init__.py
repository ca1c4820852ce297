"""Networks of one's own: apart from each other, from the host's, and from outside."""
