"""Tools that know nothing about uploads: circuit breaker, backoff, rate-limited log, timing wheel."""
