"""Tools that know nothing about uploads: circuit breaker, backoff, log limiter, timing wheel."""
