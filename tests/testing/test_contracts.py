"""The contracts as the author of a store or publisher meets them, in a test module of their own."""

from __future__ import annotations

import pytest

from upload_progress.backends import MemoryStore

pytest_plugins = ["pytester"]

FORGOTTEN = """
    import pytest
    from upload_progress.testing import MessageTransportContract, PublisherContract, StoreContract

    class TestStore(StoreContract):
        pass

    class TestPublisher(PublisherContract):
        pass

    class TestPost(MessageTransportContract):
        pass

    class TestDeaf(PublisherContract):
        @pytest.fixture
        def publisher(self):
            return object()

    @pytest.fixture
    def anyio_backend():
        return "asyncio"
"""
OWN_CLOCK = f"""
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


def test_a_fixture_that_was_forgotten_is_named(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(FORGOTTEN)
    result = pytester.runpytest_inprocess("-k", "saved_is_loaded or event_arrives or is_small")

    result.assert_outcomes(errors=4)
    result.stdout.fnmatch_lines(
        [
            "TestStore: override the fixture `store`",
            "TestPublisher: override the fixture `publisher`",
            "TestPost: override the fixture `post`",
            "TestDeaf: override the fixture `feed`",
        ]
    )


def test_a_store_with_a_clock_of_its_own_is_waited_for(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(OWN_CLOCK)
    result = pytester.runpytest_inprocess("-k", "in_portions")

    result.assert_outcomes(passed=1)
