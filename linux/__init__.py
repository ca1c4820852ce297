"""What both sides of the house need to say to the Linux kernel, and nothing else.

The runtime builds containers with it, the harness builds worlds with it. It
knows neither of them, imports only the standard library, and keeps no state.
"""
