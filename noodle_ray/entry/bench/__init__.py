"""Benchmarks: one file each, one form for all."""
