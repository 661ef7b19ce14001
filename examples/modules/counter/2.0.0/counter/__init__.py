"""Counts what it is told to, and goes on from there."""
