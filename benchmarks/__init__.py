"""One file per claim about speed or memory: ``python -m benchmarks`` runs them all."""
