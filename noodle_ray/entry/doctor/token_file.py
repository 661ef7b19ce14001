"""Whether the cluster's token is there, long enough, and for its owner's eyes only; it is never shown."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from noodle_ray.entry.doctor.finding import Finding, fail, ok, skipped
from noodle_ray.gateway.auth import MIN_TOKEN_LENGTH

MODE = 0o600


def check_token(path: Path, needed: bool, user: int | None = None) -> Finding:
    """`needed`: a cluster runs, which cannot be reached without it. `user`: who we are; default: this process's."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return _missing(path, needed)
    except OSError as error:
        return fail("token", f"{path}: {error.strerror}", "give this user the right to look there")
    return _judge(path, status, os.geteuid() if user is None else user)


def _missing(path: Path, needed: bool) -> Finding:
    if needed:
        return fail("token", f"{path} is missing, and a cluster runs", "copy the token from the head to there")
    return skipped("token", f"{path} is not there yet", "`noodle up` makes it")


def _judge(path: Path, status: os.stat_result, user: int) -> Finding:
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode):
        return fail("token", f"{path} is no file", "move it away; `noodle up` makes a token")
    if mode != MODE:
        return fail("token", f"{path} has mode {mode:04o}: others may read or change it", f"chmod 600 {path}")
    if status.st_uid != user:
        return fail("token", f"{path} belongs to user {status.st_uid}, not to {user}", f"chown {user} {path}")
    try:
        length = len(path.read_text().strip())
    except (OSError, UnicodeDecodeError) as error:
        return fail("token", f"{path} cannot be read as text: {type(error).__name__}", "put the cluster's token there")
    if length < MIN_TOKEN_LENGTH:
        found = f"{path} holds {length} characters, at least {MIN_TOKEN_LENGTH} are needed"
        return fail("token", found, "end the cluster, delete the file, and have `noodle up` make a new one")
    return ok("token", f"{path}, {length} characters, mode {mode:04o}")
