"""Monitoring: what Prometheus and Grafana are configured with, made from the definitions of our metrics."""
