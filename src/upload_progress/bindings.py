"""Which upload the requests to an address belong to, where that goes by an id of its own."""

from typing import Final

from attrs import define, field

__all__ = ["MOST_BINDINGS", "Bindings"]

MOST_BINDINGS: Final = 10_000


@define(eq=False, repr=False)
class Bindings:
    """Remembers the last so many, in this process."""

    _ids: dict[tuple[str, str], str] = field(factory=dict, init=False)

    def remember(self, owner: str, address: str, upload_id: str) -> None:
        """Let *address* of *owner* stand for *upload_id*."""
        self._ids.pop((owner, address), None)
        self._ids[owner, address] = upload_id
        if len(self._ids) > MOST_BINDINGS:
            del self._ids[next(iter(self._ids))]

    def find(self, owner: str, address: str) -> str | None:
        """Return what *address* of *owner* stands for."""
        return self._ids.get((owner, address))
