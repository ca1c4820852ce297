"""Load the plugin where it is not installed: a checkout is enough to run from."""

pytest_plugins = ["harness.plugin", "pytester"]
