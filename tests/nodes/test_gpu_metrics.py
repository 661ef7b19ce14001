"""What NVML says becomes our metrics; a machine without it has no GPUs to tell of."""

from types import SimpleNamespace

from noodle_ray.actors.gpu_metrics import measure_gpus


class NVMLError(Exception):
    """The binding's own error."""


class TwoGpus:
    """The part of NVIDIA's binding that is used, over two GPUs."""

    NVMLError = NVMLError

    def __init__(self) -> None:
        self.is_open = False
        self.breaks_at: int | None = None

    def nvmlInit(self) -> None:  # noqa: N802  (NVML's names)
        self.is_open = True

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.is_open = False

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        if index == self.breaks_at:
            raise NVMLError("GPU is lost")
        return index

    def nvmlDeviceGetMemoryInfo(self, device: int) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(total=80 * 2**30, used=device * 2**30)

    def nvmlDeviceGetName(self, device: int) -> str:  # noqa: N802
        return f"H100 {device}"

    def nvmlDeviceGetUtilizationRates(self, device: int) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(gpu=25 * device)


def test_use_and_memory_of_each() -> None:
    nvml = TwoGpus()
    first, second = measure_gpus(nvml)
    assert (second.index, second.name, second.used_ratio) == (1, "H100 1", 0.25)
    assert (second.memory_total_bytes, second.memory_used_bytes) == (80 * 2**30, 2**30)
    assert first.used_ratio == 0.0
    assert not nvml.is_open


def test_a_gpu_that_is_lost_meanwhile_ends_the_measurement_not_the_agent() -> None:
    nvml = TwoGpus()
    nvml.breaks_at = 1
    assert measure_gpus(nvml) == ()
    assert not nvml.is_open


def test_here_there_are_as_many_as_the_driver_says() -> None:
    assert all(0.0 <= gpu.used_ratio <= 1.0 for gpu in measure_gpus())
