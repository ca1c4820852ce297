"""`netmodes lab`: a shell on the world's host, with a runtime and its containers at hand.

`session` puts everything up, `terminal` runs the shell in there, `furniture` lays out
what the shell finds, `picture` draws where everybody is. `ip`, `ping` and `inside` are
the tools for machines that have none; each is a program of its own and starts fast.
"""
