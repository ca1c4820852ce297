"""Benchmarks of netmodes and mydocker beside the tools that a user would run instead.

`python -m bench.matrix` runs one bench, `python -m bench` all in `BENCHES`. Contestants take turns
in the same run. Tables show median, minimum and maximum; bars refer to the median.
"""
