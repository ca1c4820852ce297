"""The `netmodes` command, one file per group of subcommands."""
