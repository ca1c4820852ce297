"""What names lead to inside containers. What the networks and names of its scene are called."""

LAN, DMZ, FOUR, CLOSED, VAULT = "lan", "dmz", "four", "closed", "vault"
ALIAS, SHARED, NEIGHBOUR = "front", "shared", "neighbour"
LONG = "long" * 15 + "est"
"""No label has more than 63 octets: RFC 1035, 2.3.4."""
