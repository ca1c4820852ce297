"""Benchmarks that compare netmodes and mydocker with the tools that users have instead.

`python -m bench.matrix` runs one bench, `python -m bench` all benches in `BENCHES`. The contestants
take turns in the same run. Tables show median, minimum and maximum; a bound applies to the median.
"""
