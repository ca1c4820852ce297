"""mydocker, a minimal container runtime: a library (`runtime.engine`) and a command.

It speaks to the kernel through `linux` and needs no other program.
"""
