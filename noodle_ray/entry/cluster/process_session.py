"""The processes of a node on this machine: all that carry the number of the session that was made for it."""

from __future__ import annotations

import os
import signal

import psutil

STOP_TIMEOUT_S = 5.0


def stop(session: int) -> int:
    """Asks every process of the session to end, and makes those that have not after a while."""
    found = members(session)
    for kind in (signal.SIGTERM, signal.SIGKILL, signal.SIGKILL):  # once more, for what one of them has just started
        left = members(session)
        for member in left:
            send(member, kind)
        psutil.wait_procs(left, timeout=STOP_TIMEOUT_S)
        if not members(session):
            break
    return len(found)


def send(process: psutil.Process, kind: signal.Signals) -> None:
    """Sends it to a process that may be gone."""
    try:
        process.send_signal(kind)
    except psutil.NoSuchProcess:
        return  # it ended by itself meanwhile, which is what was wanted


def members(session: int) -> list[psutil.Process]:
    """The running processes that carry the session's number: a node's, and all that Ray started below it."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            continue  # ended between listing and looking, or another user's
    return found
