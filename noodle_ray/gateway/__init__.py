"""The HTTP gateway: an ASGI application over ports, one file a resource."""
