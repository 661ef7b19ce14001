"""The service directory: the actor around the core's Directory, which keeps who offers what."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import structlog

from noodle_ray.actors.names import SERVICE_DIRECTORY
from noodle_ray.services.directory import Directory, Expired, Recovered, Register, Renew, Service, Unregister
from noodle_ray.settings import Settings
from noodle_ray.store.database import Database

log = structlog.get_logger()
EXPIRY_INTERVAL_S = 1.0
