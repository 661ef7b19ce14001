"""Placement: the fleet as columns, policies that score it, and the planner that decides."""
