"""Whether the machine gives enough: memory, shared memory, open files, and features of its kernel."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from noodle_ray.entry.cluster.ray_process import NodeOptions
from noodle_ray.entry.doctor.finding import Finding, fail, ok, skipped, warn
from noodle_ray.resources import format_bytes

LEAST_MEMORY, GOOD_MEMORY = 2 * 2**30, 6 * 2**30
LEAST_FILES, GOOD_FILES = 1_024, 8_192
OBJECT_STORE = NodeOptions("").object_store_bytes or 0

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
FILE_SYSTEMS = Path("/proc/filesystems")
NAMESPACES = Path("/proc/self/ns")
THIN_LINEAR = Path("/proc/sys/net/ipv4/tcp_thin_linear_timeouts")


def check_memory(available_bytes: int, total_bytes: int, limit_bytes: int | None) -> Finding:
    """`limit_bytes`: what the container this runs in may take, if there is such a limit."""
    usable = min(available_bytes, limit_bytes or available_bytes)
    found = f"{format_bytes(usable)} of {format_bytes(total_bytes)} available"
    if limit_bytes is not None and limit_bytes < total_bytes:
        found += f", {format_bytes(limit_bytes)} allowed to this container"
    if usable < LEAST_MEMORY:
        return fail("memory", found, "end something, or allow more: Ray ends tasks and actors where memory is short")
    if usable < GOOD_MEMORY:
        return warn("memory", found, "Ray, the encoders and the gateway take about 4GiB before there is any work")
    return ok("memory", found)


def container_limit(path: Path = CGROUP_LIMIT) -> int | None:
    """The memory that this container may take; None where there is no limit, or no telling."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def check_shared_memory(free_bytes: int | None, needed_bytes: int = OBJECT_STORE) -> Finding:
    """`free_bytes`: of /dev/shm, None where there is none."""
    if free_bytes is None:
        advice = "mount a tmpfs there: without it Ray keeps objects in /tmp, which is slow"
        return warn("shared memory", "there is no /dev/shm", advice)
    found = f"{format_bytes(free_bytes)} free in /dev/shm, a node's object store takes {format_bytes(needed_bytes)}"
    if free_bytes <= needed_bytes:
        return warn("shared memory", found, "enlarge it (docker: --shm-size=1g), else Ray keeps objects in /tmp")
    return ok("shared memory", found)


def check_open_files(soft: int, hard: int) -> Finding:
    """The limits of open files; Ray raises the soft one up to the hard one by itself where it can."""
    found = f"{soft:,} files may be open, {hard:,} at most"
    if hard < LEAST_FILES:
        return fail("open files", found, f"raise the hard limit (/etc/security/limits.conf: nofile {GOOD_FILES})")
    if soft < GOOD_FILES:
        return warn("open files", found, f"ulimit -n {min(hard, GOOD_FILES)} before `noodle up`")
    return ok("open files", found)


def check_pidfd(open_pidfd: Callable[[int], int] = os.pidfd_open) -> Finding:
    """Whether the kernel hands out descriptors of processes."""
    try:
        os.close(open_pidfd(os.getpid()))
    except OSError as error:
        advice = "Linux 5.3 or later has it; without it processes are told apart by number and start time"
        return warn("kernel: pidfd", f"not there: {error.strerror}", advice)
    return ok("kernel: pidfd", "there")


def check_overlay(path: Path = FILE_SYSTEMS) -> Finding:
    """Only benchmarks and tests with several hosts on one machine need it."""
    try:
        known = {line.split()[-1] for line in path.read_text().splitlines() if line.split()}
    except OSError as error:
        return skipped("kernel: overlayfs", f"{path}: {error.strerror}")
    if "overlay" in known:
        return ok("kernel: overlayfs", "there")
    return skipped("kernel: overlayfs", "not loaded", "only hosts made of namespaces need it: modprobe overlay")


def check_namespaces(path: Path = NAMESPACES, user: int | None = None) -> Finding:
    """Only benchmarks and tests with several hosts on one machine need them, and root's rights to make them."""
    name = "kernel: namespaces"
    if missing := [kind for kind in ("net", "pid", "mnt") if not (path / kind).exists()]:
        return skipped(name, f"no {', '.join(missing)} namespaces", "only hosts made of namespaces need them")
    if (os.geteuid() if user is None else user) != 0:
        return skipped(name, "there, but only root may make them", "only hosts made of namespaces need them")
    return ok(name, "net, pid and mnt are there, and this is root")


def check_lossy_network(path: Path = THIN_LINEAR) -> Finding:
    """Whether a connection that loses several packets in a row is silent for seconds, for which Ray gives a node up."""
    name = "kernel: lost packets"
    advice = f"only networks that lose packets need it: sysctl -w net.ipv4.{path.name}=1"
    try:
        is_linear = path.read_text().strip() != "0"
    except OSError as error:
        return skipped(name, f"{path}: {error.strerror}")
    if is_linear:
        return ok(name, "are sent again after equal waits")
    return skipped(name, "are sent again after waits that double", advice)
