"""Announcements: what a head tells its network about a cluster, signed so that only holders of the token can make one.

Ray sends the token to whatever address it joins. A forged announcement must therefore not even be connected to, and the
signature covers every field, the address above all: one that was recorded and is sent again still points at the head.

The signature is an HMAC-SHA-256 whose key is derived from the token with a label of its own, so that it is good for
nothing else. It is seen by everybody on the network. Of a token of 256 random bits, such as `noodle up` makes, it tells
nothing; a short one that somebody thought up could be guessed from it, so nothing is signed with a short one.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from typing import Annotated

from pydantic import AfterValidator, Field

from noodle_ray.base_model import Model
from noodle_ray.errors import Fault, InvalidInput

MIN_TOKEN_LENGTH = 32

_LABEL = b"noodle-ray announcement 1"
_FORMAT = "1"
_FORMAT_KEY, _SIGNATURE_KEY = b"v", b"mac"
_KEYS = {_FORMAT_KEY, b"name", b"address", b"gateway", b"noodle", b"ray", b"python", b"issued", _SIGNATURE_KEY}
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


def _cluster_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("must be 1 to 63 letters (A to Z), digits and '-', which may not be at an end")
    return value


def _address(value: str) -> str:
    # Never a host's name: whoever answers for the name on this network would choose where the token is sent.
    host, _, port = value.rpartition(":")
    if not (_is_reachable(host) and _is_port(port)):
        raise ValueError("must be IPV4:PORT, where other hosts reach it (a number, no name; not 127.… and not 0.0.0.0)")
    return value


def _is_reachable(host: str) -> bool:
    try:
        address = IPv4Address(host)
    except AddressValueError:
        return False
    return not (address.is_unspecified or address.is_loopback or address.is_multicast)


def _is_port(text: str) -> bool:
    return re.fullmatch(r"[1-9][0-9]{0,4}", text) is not None and int(text) <= 65535


def _gateway_url(value: str) -> str:
    scheme, mark, address = value.partition("://")
    if value and not (scheme in ("http", "https") and mark):
        raise ValueError("must be http://IPV4:PORT, https://IPV4:PORT, or empty where the gateway serves its host only")
    if value:
        _address(address)
    return value


ClusterName = Annotated[str, AfterValidator(_cluster_name)]
"""What tells clusters on one network apart: fits into one label of a DNS name."""

Version = Annotated[str, Field(pattern=r"^[0-9A-Za-z.+!_-]{1,60}$")]


class Versions(Model):
    """What has to be equal on all hosts of a cluster; Ray refuses others."""

    noodle_ray: Version
    ray: Version
    python: Version

    def __str__(self) -> str:
        return f"noodle-ray {self.noodle_ray}, Ray {self.ray} and Python {self.python}"


class Announcement(Model):
    """A cluster as its head announces it. address: of Ray's GCS; issued_at: seconds since 1970, by the head's clock."""

    name: ClusterName
    address: Annotated[str, AfterValidator(_address)]
    gateway_url: Annotated[str, AfterValidator(_gateway_url)] = ""
    versions: Versions
    issued_at: Annotated[int, Field(ge=0, lt=10**11)]

    def issued(self, at: float) -> Announcement:
        """The same, issued anew."""
        return Announcement.parse({**dict(self), "issued_at": int(at)})

    def sign(self, token: str) -> dict[bytes, bytes]:
        """The properties of its DNS record. Raises InvalidInput where the token is too short to sign with."""
        if len(token) < MIN_TOKEN_LENGTH:
            raise InvalidInput.of(
                "token", f"must be at least {MIN_TOKEN_LENGTH} random characters to sign what all see"
            )
        properties = self._properties()
        return {**properties, _SIGNATURE_KEY: _sign(properties, token)}

    def mismatch(self, here: Versions) -> str:
        """Why a host with these versions cannot join, and what to do; "" where it can."""
        if here == self.versions:
            return ""
        return f"cluster {self.name} runs {self.versions}; here are {here}: install here what runs there"

    def _properties(self) -> dict[bytes, bytes]:
        fields = {
            "name": self.name,
            "address": self.address,
            "gateway": self.gateway_url,
            "noodle": self.versions.noodle_ray,
            "ray": self.versions.ray,
            "python": self.versions.python,
            "issued": str(self.issued_at),
        }
        return {_FORMAT_KEY: _FORMAT.encode(), **{key.encode(): value.encode() for key, value in fields.items()}}


@dataclass(frozen=True, slots=True)
class SignedAnnouncement:
    """An announcement as it was received: anybody's, until its signature is found to fit."""

    announcement: Announcement
    signature: bytes

    def fits(self, token: str) -> bool:
        """Whether a holder of this token signed it; with one that is too short nobody did."""
        long_enough = len(token) >= MIN_TOKEN_LENGTH
        return long_enough and hmac.compare_digest(self.signature, _sign(self.announcement._properties(), token))


def read(properties: Mapping[bytes, bytes | None]) -> SignedAnnouncement:
    """What the properties of a DNS record say. Raises InvalidInput where they are no announcement of this format."""
    texts = {key: _text(key, value) for key, value in _of_this_format(properties).items()}
    announcement = Announcement.parse(
        {
            "name": texts[b"name"],
            "address": texts[b"address"],
            "gateway_url": texts[b"gateway"],
            "versions": {"noodle_ray": texts[b"noodle"], "ray": texts[b"ray"], "python": texts[b"python"]},
            "issued_at": _seconds(texts[b"issued"]),
        }
    )
    return SignedAnnouncement(announcement, texts[_SIGNATURE_KEY].encode())


def _of_this_format(properties: Mapping[bytes, bytes | None]) -> Mapping[bytes, bytes | None]:
    if properties.get(_FORMAT_KEY) != _FORMAT.encode():
        raise _fault("v", f"must be {_FORMAT}: other versions of noodle-ray may announce otherwise")
    if missing := sorted(_KEYS - set(properties)):
        raise _fault(missing[0].decode(), "is missing")
    if set(properties) - _KEYS:  # their names are anybody's: they are not repeated
        raise _fault("announcement", f"may have no fields but {', '.join(sorted(key.decode() for key in _KEYS))}")
    return properties


def _text(key: bytes, value: bytes | None) -> str:
    if value is None:
        raise _fault(key.decode(), "has no value")
    text = value.decode("latin-1")
    # Nothing that a terminal would obey may get as far as a message.
    if not (text.isascii() and text.isprintable()):
        raise _fault(key.decode(), "must be printable ASCII characters")
    return text


def _seconds(text: str) -> int:
    # One way only to write a number, so that what was signed is what is read.
    if not re.fullmatch(r"0|[1-9][0-9]{0,10}", text):
        raise _fault("issued", "must be seconds since 1970")
    return int(text)


def _fault(field: str, problem: str) -> InvalidInput:
    return InvalidInput([Fault(field, problem)], subject="announcement")


def _sign(properties: Mapping[bytes, bytes], token: str) -> bytes:
    key = hmac.digest(token.encode(), _LABEL, "sha256")
    return hmac.digest(key, _body(properties), "sha256").hex().encode()


def _body(properties: Mapping[bytes, bytes]) -> bytes:
    """All of it in one way only: each part with its length before it."""
    parts = [part for key in sorted(properties) for part in (key, properties[key])]
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts)
