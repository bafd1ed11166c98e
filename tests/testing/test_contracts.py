"""The contracts in the test module of an author of a store or publisher."""

from __future__ import annotations

import pytest

from upload_progress.backends import MemoryStore

pytest_plugins = ["pytester"]

MISSING_FIXTURES = """
    import pytest
    from upload_progress.testing import MessageTransportContract, PublisherContract, StoreContract

    class TestStore(StoreContract):
        pass

    class TestPublisher(PublisherContract):
        pass

    class TestTransport(MessageTransportContract):
        pass

    class TestWithoutSubscriber(PublisherContract):
        @pytest.fixture
        def publisher(self):
            return object()

    @pytest.fixture
    def anyio_backend():
        return "asyncio"
"""
SYSTEM_CLOCK = f"""
    import pytest
    from upload_progress.testing import StoreContract
    from {MemoryStore.__module__} import MemoryStore

    class TestStore(StoreContract):
        @pytest.fixture
        def store(self):
            return MemoryStore(retention=self.RETENTION)

    @pytest.fixture
    def anyio_backend():
        return "asyncio"
"""


def test_missing_fixture_is_named(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(MISSING_FIXTURES)
    result = pytester.runpytest_inprocess(
        "-k", "saved_record_is_loaded or event_arrives or message_size_is_limited"
    )

    result.assert_outcomes(errors=4)
    result.stdout.fnmatch_lines(
        [
            "TestStore: override the fixture `store`",
            "TestPublisher: override the fixture `publisher`",
            "TestTransport: override the fixture `transport`",
            "TestWithoutSubscriber: override the fixture `subscriber`",
        ]
    )


def test_store_with_system_clock_is_tested_by_waiting(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SYSTEM_CLOCK)
    result = pytester.runpytest_inprocess("-k", "at_most_limit")

    result.assert_outcomes(passed=1)
