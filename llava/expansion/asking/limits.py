"""The bounds of asking: how many at once, how often again, how long to wait. Each stands here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Every bound of a dispatch.

    Attributes:
        concurrency: most requests in flight.
        retries: most retries of one request.
        repairs: most further paid attempts after an unusable reply.
        consecutive_failures: so many failures without a single success in between mean that the endpoint is down.
        first_pause: seconds before the first retry; doubles up to `longest_pause`.
        longest_pause: longest own pause in seconds.
        longest_retry_after: a server that asks for a longer pause than this stops the run.
    """

    concurrency: int = 32
    retries: int = 8
    repairs: int = 2
    consecutive_failures: int = 60
    first_pause: float = 1.0
    longest_pause: float = 60.0
    longest_retry_after: float = 600.0
