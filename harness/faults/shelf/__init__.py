"""The faults that come with the harness, by what they break."""
