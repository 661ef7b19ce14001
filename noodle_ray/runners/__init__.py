"""Runners: what runs a module's code, in the host's own process or in one beside it."""
