"""The thin shells on Ray: actors that receive, ask the core, and perform."""

if __name__ != "noodle_ray.actors":
    raise ImportError(f"import this package as noodle_ray.actors, not as {__name__}")
