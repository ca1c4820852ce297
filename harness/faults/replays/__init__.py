"""The replays of upstream bugs, which `suites/upstream` describes."""

__all__ = []
