"""The raylet's own table of resources: which GPUs each bundle got."""

from noodle_ray.nodes.picked_gpus import PickedGpus, read_picked_gpus

NODE = "2d" * 28
GROUP = "192d" * 9
OTHER = "f92f" * 9

# As Ray 2.60 wrote it, shortened: a node with four GPUs, a bundle of a half, and one of one and a half.
TEXT = f"""
NodeManager:
Node ID: {NODE}
cluster_resource_scheduler state:
Local id: 8 Local resources: {{"total":{{bundle_group_{GROUP}: [10000000], GPU_group_{GROUP}: [5000, 0, 0, 0], \
GPU_group_0_{GROUP}: [5000, 0, 0, 0], CPU: [40000], GPU: [10000, 10000, 10000, 10000], \
GPU_group_1_{OTHER}: [5000, 0, 10000, 0], GPU_group_{OTHER}: [5000, 0, 10000, 0]}}}}, \
"available": {{CPU: [40000], GPU: [0, 10000, 0, 10000], GPU_group_0_{GROUP}: [0, 0, 0, 0]}}}}, \
"labels":{{"noodle-ray.io/name":"gpu-a","ray.io/node-id":"{NODE}",}} is_draining: 0
"""


def test_reads_what_each_bundle_has_whether_or_not_it_is_in_use() -> None:
    assert read_picked_gpus(TEXT, NODE) == {PickedGpus(GROUP, 0, (0,)), PickedGpus(OTHER, 1, (0, 2))}


def test_another_nodes_table_and_half_a_file_say_nothing() -> None:
    assert read_picked_gpus(TEXT, "ab" * 28) is None
    assert read_picked_gpus(TEXT[: TEXT.index("is_draining") - 60], NODE) is None
    assert read_picked_gpus("", NODE) is None
