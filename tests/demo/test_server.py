"""The tracker of the demo: options of the command line win over the environment."""

from __future__ import annotations

import pytest

from tests.backends.test_from_url import store_of
from upload_progress import InvalidValue, MemoryStore
from upload_progress.backends.redis.store import RedisStore
from upload_progress.demo import DemoConfig
from upload_progress.settings import settings_from_environment

REDIS = "redis://127.0.0.1:9"


def config(store: str | None = None, events: str | None = None) -> DemoConfig:
    return DemoConfig("127.0.0.1", 0, None, None, store, events)


@pytest.mark.parametrize(
    ("variable", "options", "kind"),
    [
        ("", config(), MemoryStore),
        (REDIS, config(), RedisStore),
        (REDIS, config("memory:"), MemoryStore),
        (REDIS, config(events="redis://127.0.0.1:10"), RedisStore),
        ("", config(REDIS, "redis://127.0.0.1:10"), RedisStore),
    ],
)
def test_option_wins_over_the_setting(variable: str, options: DemoConfig, kind: type) -> None:
    settings = settings_from_environment(
        {"UPLOAD_PROGRESS_STORE_URL": variable, "UPLOAD_PROGRESS_MOUNT_PATH": "/progress"}
    )

    tracker = options.create_tracker(settings)

    assert isinstance(store_of(tracker), kind)
    assert tracker.config.mount_path == "/progress"


def test_invalid_setting_is_named() -> None:
    settings = settings_from_environment({"UPLOAD_PROGRESS_STORE_URL": "other://x"})

    with pytest.raises(InvalidValue, match="UPLOAD_PROGRESS_STORE_URL"):
        config().create_tracker(settings)
