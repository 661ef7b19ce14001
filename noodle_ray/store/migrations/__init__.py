"""The steps from one layout of the tables to the next, one a file; `noodle_ray.store.schema` takes them."""
