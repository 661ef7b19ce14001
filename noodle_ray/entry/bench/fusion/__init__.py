"""The benchmark of the fusion service: how often it is right, and how quickly."""
