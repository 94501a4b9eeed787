"""A lease on a ledger in an object store: one run at a time, and a dead run blocks nobody for long.

The lease is an object beside the segments. It says who holds it, is renewed in the background, and is deleted on
close. Its age is taken from the store's own clock. Whoever finds one takes it over when the holder is dead: not renewed
for `expire_s`; or a process of this machine that no longer exists; or an earlier attempt of the same Kubeflow task,
which ends before its retry starts. Otherwise it watches, until the lease is renewed (the holder lives: an error) or
expires.

Where the store honours conditional writes, two runs can never both take it. Where it does not (found out by trying),
the last of two that write at the same moment wins, and the other one finds out when it looks again, right after
`settle_s` or at its next renewal: until then both could pay.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from llava import storage
from llava.errors import SettingsError, StorageError

RENEW_S, EXPIRE_S = 15.0, 60.0
_LONGEST_EXPIRE_S = 600.0  # whatever a damaged or foreign lease says
_MOST_REFUSALS = 10
_NAME = "lease.json"


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lease.

    Attributes:
        token: of one opening; nothing else is ever compared to tell two holders apart.
        run: what the run is called: where its rows go, or the command's name.
        attempt: of a Kubeflow task, from 0.
        machine: host, boot and process namespace, in which `process` (id and start time) is unique.
        since: UTC, for people.
        renewals: so that each renewal changes the object's tag.
    """

    token: str
    run: str
    attempt: int
    host: str
    pid: int
    machine: str
    process: str
    since: str
    expire_s: float
    renewals: int = 0


class Lease:
    """Take the lease below a ledger's URI, and keep it until `release`.

    Args:
        run: see Holder; a later attempt of the same run takes over at once.
        note: told, in words, when there is something to wait for.

    Raises:
        SettingsError: another run holds it, and lives.
        StorageError: the store refuses or does not answer.
    """

    def __init__(
        self,
        uri: str,
        run: str = "",
        *,
        note: Callable[[str], None] = lambda text: None,
        renew_s: float = RENEW_S,
        expire_s: float = EXPIRE_S,
        look_s: float = 1.0,
        settle_s: float = 1.0,
    ) -> None:
        self._ledger = uri
        self._uri = storage.join(uri, _NAME)
        self._note = note
        self._renew_s, self._expire_s, self._look_s = renew_s, expire_s, look_s
        self._me = Holder(
            token=uuid.uuid4().hex,
            run=run,
            attempt=_attempt(),
            host=socket.gethostname(),
            pid=os.getpid(),
            machine=machine(),
            process=_process(os.getpid()),
            since=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            expire_s=expire_s,
        )
        self._lost = ""
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._take()
        self._settle(settle_s)
        self._renewed = time.monotonic()
        self._keeper = threading.Thread(target=self._keep, name="ledger-lease", daemon=True)
        self._keeper.start()

    def check(self) -> None:
        """Make sure that it is still ours, before more is paid for.

        Raises:
            SettingsError: another run took it over, because this one could not renew it in time.
        """
        if time.monotonic() - self._renewed > self._expire_s:
            self._renew()  # this process slept, or the store was away: ask before continuing
        if self._lost:
            raise SettingsError(
                f"ledger {self._ledger}: this run could not renew its lease for {self._expire_s:g} s, and {self._lost} "
                "took it over; this run's replies are recorded; start it again when that one has ended"
            )

    def release(self) -> None:
        """Give it back; another run can start at once. A store that is away leaves it to expire."""
        self._ended.set()
        self._keeper.join(timeout=5)
        with contextlib.suppress(StorageError), self._lock:
            found = storage.read_tagged(self._uri)
            if found is not None and (holder := _read(found.data)) and holder.token == self._me.token:
                storage.delete(self._uri)

    def _take(self) -> None:
        watched, since, refused = "", time.monotonic(), 0
        while True:
            found = storage.read_tagged(self._uri)
            holder = _read(found.data) if found else None
            if holder and holder.token == self._me.token:
                return  # our own write, whose answer was lost
            if found and not self._is_dead(holder, max(found.age_s, time.monotonic() - since if watched else 0.0)):
                here = holder is not None and holder.machine == self._me.machine
                if here or (watched and found.tag != watched):
                    raise SettingsError(self._held(holder, found.age_s))
                if not watched:
                    watched, since = found.tag, time.monotonic()
                    self._note(f"{_described(holder)} has the ledger open; waiting to see whether it still lives")
                time.sleep(self._look_s)
                continue
            if storage.write_tagged(self._uri, self._content(), found.tag if found else None):
                return
            refused += 1
            if refused == _MOST_REFUSALS:
                raise StorageError(f"{self._uri}: the store refused {refused} conditional writes in a row")

    def _is_dead(self, holder: Holder | None, age_s: float) -> bool:
        if holder is None:
            return age_s > EXPIRE_S
        if holder.machine == self._me.machine:
            return _process(holder.pid) != holder.process
        earlier = bool(holder.run) and holder.run == self._me.run and holder.attempt < self._me.attempt
        return earlier or age_s > min(holder.expire_s, _LONGEST_EXPIRE_S)

    def _settle(self, settle_s: float) -> None:
        """Where a second `only if there is none` succeeds, the store ignores conditions: look who wrote last."""
        if storage.write_tagged(self._uri, self._content(), None) is None:
            return
        time.sleep(settle_s)
        found = storage.read_tagged(self._uri)
        holder = _read(found.data) if found else None
        if found and holder and holder.token != self._me.token:
            raise SettingsError(self._held(holder, found.age_s))

    def _keep(self) -> None:
        while not self._ended.wait(self._renew_s) and not self._lost:
            with contextlib.suppress(StorageError):  # the next round tries again, and `check` before each write
                self._renew()

    def _renew(self) -> None:
        with self._lock:
            for _ in range(_MOST_REFUSALS):
                if self._ended.is_set():
                    return
                found = storage.read_tagged(self._uri)
                holder = _read(found.data) if found else None
                if found and (holder is None or holder.token != self._me.token):
                    self._lost = _described(holder)
                    return
                self._me = replace(self._me, renewals=self._me.renewals + 1)
                # Absent (somebody deleted it) is written again: if another run is quicker, the next look says so.
                if storage.write_tagged(self._uri, self._content(), found.tag if found else None):
                    self._renewed = time.monotonic()
                    return

    def _content(self) -> bytes:
        return (json.dumps(asdict(self._me), indent=2) + "\n").encode()

    def _held(self, holder: Holder | None, age_s: float) -> str:
        expire_s = holder.expire_s if holder else EXPIRE_S
        return (
            f"ledger {self._ledger}: another run has it open: {_described(holder)}, lease renewed {age_s:.0f} s ago; "
            "two at once would pay for the same replies twice. Wait for it, stop it, or give another ledger_uri; if "
            f"it dies, its lease expires {expire_s:g} s after the last renewal"
        )


def machine() -> str:
    """Where process ids are unique: host, boot, process namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"{socket.gethostname()} {uuid.uuid4().hex}"  # not Linux: nobody is known to be on the same machine


def _process(pid: int) -> str:
    """Id and start time of a process; empty when it does not exist or is only a corpse."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else f"{pid} {fields[19]}"


def _attempt() -> int:
    text = os.environ.get("KFP_RETRY_INDEX", "")
    return int(text) if text.isdigit() else 0


def _read(data: bytes) -> Holder | None:
    try:
        return Holder(**json.loads(data))
    except (ValueError, TypeError):
        return None


def _described(holder: Holder | None) -> str:
    if holder is None:
        return "a run that left no readable lease"
    return f"{holder.run or 'a run without a name'} (host {holder.host}, process {holder.pid}, since {holder.since})"
