"""The `mydocker` command: grammar and action of a command stand in one file."""
