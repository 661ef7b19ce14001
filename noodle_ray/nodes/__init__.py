"""Nodes: who is there, what they hold, and what becomes of it."""
