"""What a live upload amounts to at this moment: its record, and how its bytes came."""

from typing import TYPE_CHECKING

from upload_progress.arrival import judge_arrival
from upload_progress.model import Arrival, TransferRecord

if TYPE_CHECKING:
    from upload_progress.live import LiveUpload

__all__ = ["arrival_of", "record_of"]


def arrival_of(upload: "LiveUpload") -> Arrival | None:
    """Return how the bytes of *upload* came, once the last of them is here."""
    if upload.pulse is None or upload.started_at is None:
        return None
    announced = min((record.created_at for record in upload.prior), default=upload.started_at)
    return judge_arrival(
        received_bytes=upload.received_bytes,
        body_seconds=upload.desk.clock.monotonic() - upload.pulse.began_at,
        waited_seconds=upload.started_at - announced,
        is_proxied=upload.is_proxied,
        is_led_by_client=upload.pulse.is_led_by_client,
    )


def record_of(upload: "LiveUpload") -> TransferRecord:
    """Return what this process knows of *upload* now, as the newest version of its record."""
    pulse = upload.pulse
    return TransferRecord(
        owner=upload.owner or "",
        upload_id=upload.upload_id,
        transfer_id=upload.transfer_id,
        attempt=upload.attempt,
        sequence=upload.sequence,
        state=upload.state,
        received_bytes=upload.received_bytes,
        total_bytes=upload.meter.total_bytes,
        bytes_per_second=pulse.estimate.bytes_per_second if pulse else None,
        stalled=pulse is not None and pulse.is_stalled,
        arrival=upload.arrival,
        stage=upload.current_stage.stage if upload.current_stage else None,
        error=upload.error,
        group=upload.group,
        filename=upload.filename,
        content_type=upload.content_type,
        metadata=upload.metadata,
        created_at=upload.created_at,
        started_at=upload.started_at,
        updated_at=upload.finished_at or upload.desk.clock.time(),
        last_byte_at=pulse.last_byte_at if pulse else None,
        finished_at=upload.finished_at,
        worker=None if upload.is_ended else upload.worker,
    )
