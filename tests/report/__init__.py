"""Reports, the gate, shards: what a run leaves, and what is concluded from it."""
