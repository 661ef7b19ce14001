"""Resolution: exact versions that satisfy requirements, newest first, or the smallest reason why there are none."""
