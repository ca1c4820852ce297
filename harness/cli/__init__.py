"""The `netmodes` command, with one module per group of subcommands."""

__all__ = []
