"""A cluster on machines: its Ray started, found, joined, kept running and ended."""
