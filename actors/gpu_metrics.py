"""What NVML says of this machine's GPUs, where there are any."""

from __future__ import annotations

from typing import Any

import pynvml

from noodle_ray.nodes.metrics import GpuMetrics


def measure_gpus(nvml: Any = pynvml) -> tuple[GpuMetrics, ...]:
    """Use and memory of each GPU; none where there is no NVIDIA driver, or it does not answer."""
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return ()
    try:
        return tuple(_measure(nvml, index) for index in range(nvml.nvmlDeviceGetCount()))
    except nvml.NVMLError:
        return ()
    finally:
        nvml.nvmlShutdown()


def _measure(nvml: Any, index: int) -> GpuMetrics:
    device = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(device)
    return GpuMetrics(
        index=index,
        name=str(nvml.nvmlDeviceGetName(device)),
        used_ratio=nvml.nvmlDeviceGetUtilizationRates(device).gpu / 100,
        memory_total_bytes=memory.total,
        memory_used_bytes=memory.used,
    )
