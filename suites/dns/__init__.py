"""Suites about name resolution in containers, and about their hosts, hostname and resolv.conf.

The constants name networks and aliases of the shared containers.
"""

LAN, DMZ, FOUR, CLOSED, VAULT = "lan", "dmz", "four", "closed", "vault"
ALIAS, SHARED, NEIGHBOUR = "front", "shared", "neighbour"
LONG = "long" * 15 + "est"
"""Longest label: 63 octets (RFC 1035, 2.3.4)."""
