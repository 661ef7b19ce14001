"""The simulation: a seeded world in which the manager's core is played through crashes, partitions and delays."""
