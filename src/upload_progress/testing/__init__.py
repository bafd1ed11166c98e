"""For tests: contracts that prove a store or publisher, and stand-ins for time and trouble.

Subclass a contract in a test module, override its fixtures, and run pytest with anyio's
plugin. What passes works with ``ProgressTracker``::

    class TestMyStore(StoreContract):
        @pytest.fixture
        def store(self) -> SessionStore:
            return MyStore(retention=self.RETENTION)

Needs pytest; nothing else in this library imports this module.
"""

from upload_progress.testing.fakes import (
    FakeClock,
    Fault,
    FaultyPublisher,
    FaultyStore,
    RecordingPublisher,
)
from upload_progress.testing.lease_contract import Elapse
from upload_progress.testing.publisher_contract import (
    PATIENCE_SECONDS,
    MessageTransportContract,
    PublisherContract,
)
from upload_progress.testing.store_contract import StoreContract

__all__ = [
    "PATIENCE_SECONDS",
    "Elapse",
    "FakeClock",
    "Fault",
    "FaultyPublisher",
    "FaultyStore",
    "MessageTransportContract",
    "PublisherContract",
    "RecordingPublisher",
    "StoreContract",
]
