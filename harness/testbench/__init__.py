"""What a test works with: scenes, containers, sockets, transfers, name look-ups."""
