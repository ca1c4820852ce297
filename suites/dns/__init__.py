"""What names lead to inside containers. What the networks and names of its scene are called."""

LAN, DMZ, FOUR, CLOSED, VAULT = "lan", "dmz", "four", "closed", "vault"
ALIAS, SHARED, NEIGHBOUR = "front", "shared", "neighbour"
