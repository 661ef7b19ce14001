"""How often each word occurs."""
