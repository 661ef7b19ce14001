"""Data from public packages, and what is trained on it: the heads, maps and rules that come with noodle-ray."""
