"""Modules: versioned code with dependencies, resolved, loaded and swapped while calls run."""
