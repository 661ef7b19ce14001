"""Torch encoders and the Ray Serve deployments that run them."""

if __name__ != "noodle_ray.fusion_models":
    raise ImportError(f"import this package as noodle_ray.fusion_models, not as {__name__}")
