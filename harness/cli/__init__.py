"""The `netmodes` command: one module per group of subcommands."""

__all__ = []
