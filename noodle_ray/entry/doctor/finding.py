"""A finding: what one check saw, whether that is well, and what to do where it is not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from noodle_ray.base_model import Model

State = Literal["ok", "warn", "fail", "skipped"]


class Finding(Model):
    """`warn`: it works, but worse or not for long; `fail`: something will not work; `skipped`: could not be looked at.

    `advice` is empty where there is nothing to do. Neither text ever holds a secret.
    """

    name: str
    state: State
    found: str
    advice: str = ""


def ok(name: str, found: str) -> Finding:
    return Finding(name=name, state="ok", found=found)


def warn(name: str, found: str, advice: str) -> Finding:
    return Finding(name=name, state="warn", found=found, advice=advice)


def fail(name: str, found: str, advice: str) -> Finding:
    return Finding(name=name, state="fail", found=found, advice=advice)


def skipped(name: str, why: str, advice: str = "") -> Finding:
    return Finding(name=name, state="skipped", found=why, advice=advice)


def failed(findings: Iterable[Finding]) -> bool:
    """Whether any of them is a failure."""
    return any(finding.state == "fail" for finding in findings)
