"""Ray's fake provider, kept on loopback: each node that the autoscaler launches is a real raylet on this machine."""

from typing import Any

import ray
import ray._private.services  # the provider below takes it for imported
from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider

WORKER_ADDRESS = "127.0.0.31"


class LoopbackProvider(FakeMultiNodeProvider):
    def _create_node_with_resources_and_labels(self, *args: Any) -> None:
        ray.util.get_node_ip_address = lambda *_, **__: WORKER_ADDRESS  # else this machine's outer address
        super()._create_node_with_resources_and_labels(*args)
