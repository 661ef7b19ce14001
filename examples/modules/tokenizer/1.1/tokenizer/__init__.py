"""Words of a text."""
