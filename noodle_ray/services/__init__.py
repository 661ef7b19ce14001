"""Services: who offers what, where."""
