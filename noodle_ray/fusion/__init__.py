"""Fusion: text, sound, pictures and code as evidence for one answer."""
