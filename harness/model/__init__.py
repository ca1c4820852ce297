"""Pure data and rules: plans, matrix, dialects, requirements, the oracle. No I/O, no imports but the standard library and msgspec."""
