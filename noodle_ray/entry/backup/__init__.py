"""Backup: the state of a cluster in one file, and back."""
