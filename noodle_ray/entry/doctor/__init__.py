"""The doctor: looks at a machine and a cluster, and says what is wrong and what to do; changes nothing."""
