"""One module per performance budget; ``python -m benchmarks`` runs all of them."""
