"""Placement, live modules and multimodal fusion for Ray clusters."""
