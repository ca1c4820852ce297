"""Side-by-side measurements: every figure next to that of an alternative.

Each module runs by itself (`python -m bench.matrix`); `python -m bench` runs all.
Contestants take turns in the same run. The median counts, and the spread is shown.
"""
