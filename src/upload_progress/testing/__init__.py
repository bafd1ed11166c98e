"""Contracts for a store or publisher of your own; uploads and fakes for tests of applications.

Subclass a contract in a test module, override its fixtures, and run pytest with anyio's plugin. A
store that passes works with ``ProgressTracker``::

    import pytest

    from upload_progress.interfaces import SessionStore
    from upload_progress.testing import StoreContract


    class TestMyStore(StoreContract):
        @pytest.fixture
        def store(self) -> SessionStore:
            return MyStore(retention=self.RETENTION)

Requires pytest. No other module of the library imports this one.
"""

from upload_progress.testing.fakes import (
    FakeClock,
    Fault,
    FaultyPublisher,
    FaultyStore,
    RecordingPublisher,
)
from upload_progress.testing.lease_contract import Elapse, LeaseContract
from upload_progress.testing.publisher_contract import (
    TIMEOUT_SECONDS,
    MessageTransportContract,
    PublisherContract,
)
from upload_progress.testing.store_contract import StoreContract
from upload_progress.testing.uploads import PacedBody, upload_in_state

__all__ = [
    "TIMEOUT_SECONDS",
    "Elapse",
    "FakeClock",
    "Fault",
    "FaultyPublisher",
    "FaultyStore",
    "LeaseContract",
    "MessageTransportContract",
    "PacedBody",
    "PublisherContract",
    "RecordingPublisher",
    "StoreContract",
    "upload_in_state",
]
