"""The pure core: tests that need no kernel and run on any machine."""
