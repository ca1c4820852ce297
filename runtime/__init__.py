"""mydocker, a minimal container runtime: a library (`runtime.engine`) and a command.

The runtime uses the kernel through the package `linux` and needs no other program.
"""
