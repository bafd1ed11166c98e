"""Metrics and traces: ``prometheus`` has a collector, ``opentelemetry`` a meter and a tracer."""
