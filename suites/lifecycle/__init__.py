"""How containers come and go: nothing is left, whatever happens on the way."""
