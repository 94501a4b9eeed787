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
        max_unusable: largest share of replies that cannot be used, among the first 50 and in any 50 after; 1: any.
        consecutive_failures: so many failures without a single success in between mean that the endpoint is down.
        consecutive_refusals: so many refused requests in a row mean that not the requests are at fault.
        first_pause: seconds before the first retry; doubles up to `longest_pause`.
        longest_pause: longest own pause in seconds.
        longest_retry_after: a server that asks for a longer pause than this stops the run.
    """

    concurrency: int = 32
    retries: int = 8
    repairs: int = 2
    max_unusable: float = 0.5
    consecutive_failures: int = 60
    consecutive_refusals: int = 10
    first_pause: float = 1.0
    longest_pause: float = 60.0
    longest_retry_after: float = 600.0
