"""The lines that mend a proxy, by what is wrong with it.

Sources: nginx ``ngx_http_proxy_module`` and its page on WebSocket proxying; Caddy
``reverse_proxy``; Traefik's buffering middleware and ``responseForwarding``; Apache ``mod_proxy``,
``mod_proxy_http`` and ``mod_proxy_wstunnel``.
"""

from collections.abc import Mapping
from enum import Enum, unique
from typing import Final

__all__ = ["Fault", "mends_of"]


@unique
class Fault(Enum):
    """What a proxy can do to uploads and their progress."""

    UPLOAD_HELD_BACK = "It holds requests back until they are whole."
    STREAM_HELD_BACK = "It holds answers back, so that event streams do not pass."
    NO_SOCKET = "It does not let WebSockets through."


_MENDS: Final[Mapping[Fault, Mapping[str, str]]] = {
    Fault.UPLOAD_HELD_BACK: {
        "nginx": "proxy_request_buffering off; proxy_http_version 1.1;",
        "Caddy": "remove request_buffers from reverse_proxy: without it requests are streamed",
        "Traefik": "take the buffering middleware off this router",
        "Apache": "SetEnv proxy-sendchunked 1   (and no SetInputFilter BUFFER, no proxy-sendcl)",
    },
    Fault.STREAM_HELD_BACK: {
        "nginx": "proxy_buffering off; proxy_http_version 1.1; gzip off;",
        "Caddy": "reverse_proxy … { flush_interval -1 }",
        "Traefik": "take compress and buffering off this router, or set flushInterval to 1ms",
        "Apache": "ProxyPass /uploads http://…/uploads flushpackets=on",
    },
    Fault.NO_SOCKET: {
        "nginx": "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; "
        "proxy_set_header Connection upgrade;",
        "Caddy": "nothing: WebSockets pass; look further along the way",
        "Traefik": "nothing: WebSockets pass; look further along the way",
        "Apache": "ProxyPass /uploads http://…/uploads upgrade=websocket",
    },
}


def mends_of(fault: Fault) -> list[str]:
    """Return what mends *fault*, a line for each proxy."""
    return [f"  {proxy:<9}{mend}" for proxy, mend in _MENDS[fault].items()]
