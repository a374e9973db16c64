"""Real processes of tests: commands, nodes of a cluster, ranks of a training."""
