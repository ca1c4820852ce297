"""The benches keep working."""
