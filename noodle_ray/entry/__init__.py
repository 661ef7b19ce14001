"""The top floor: what a driver, a shell and a benchmark see; the only place that knows everybody."""
