"""What the routes share: the ports, as a dependency, and the types of names in paths."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Path, Request

from noodle_ray.gateway.ports import Ports


async def _ports_of(request: Request) -> Ports:  # not async, it would run in a thread
    return cast(Ports, request.app.state.ports)


PortsOf = Annotated[Ports, Depends(_ports_of)]

_IDENTIFIER = r"^[A-Za-z0-9][A-Za-z0-9._:-]*$"
NodeId = Annotated[str, Path(max_length=200, pattern=_IDENTIFIER, description="The node's id.")]
AllocationId = Annotated[str, Path(max_length=200, pattern=_IDENTIFIER, description="The allocation's id.")]
ServiceId = Annotated[str, Path(max_length=100, pattern=_IDENTIFIER, description="The service's name.")]
ModuleId = Annotated[str, Path(max_length=100, pattern=_IDENTIFIER, description="The module's name.")]
IndexId = Annotated[
    str, Path(max_length=63, pattern=r"^[a-z0-9][a-z0-9._-]*$", description="The name of an index of fusion's.")
]
SessionInPath = Annotated[
    str, Path(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", description="The session's id.")
]
VersionId = Annotated[
    str, Path(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._!+-]*$", description="A PEP 440 version.")
]
