"""Benchmarks: ours against a named baseline in the same run, as a ratio. `make bench`; none is a timed test."""
