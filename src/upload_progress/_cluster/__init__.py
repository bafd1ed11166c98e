"""Several workers: follow uploads of other workers, send them commands, end what dead ones left."""
