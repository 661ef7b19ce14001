"""Replay: public traces, played through placement."""
