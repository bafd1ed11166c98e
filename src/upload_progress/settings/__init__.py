"""Settings from environment variables, for containers."""

from upload_progress.settings.environment import (
    MiddlewareOptions,
    RouteOptions,
    Settings,
    TrackerOptions,
    settings_from_environment,
)

__all__ = [
    "MiddlewareOptions",
    "RouteOptions",
    "Settings",
    "TrackerOptions",
    "settings_from_environment",
]
