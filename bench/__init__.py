"""Side-by-side measurements: every figure next to what a user would pick instead.

Each module runs by itself (`python -m bench.matrix`); `python -m bench` runs all.
Contestants take turns in the same run, medians count, and the spread is shown,
for machines are noisy.
"""
