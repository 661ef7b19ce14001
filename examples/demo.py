"""The demonstration that `make demo` runs: a cluster on this machine, the main job on it, and a clean end.

Two more Ray nodes join the machine's own. Their GPUs are pretended (there is no such card here), so that placement
has something to choose from; everything else is real.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from noodle_ray.entry.cli.output import console, with_clear_errors
from noodle_ray.entry.cluster.launch import UpOptions
from noodle_ray.entry.cluster.local_cluster import local_cluster
from noodle_ray.entry.cluster.ray_process import NodeOptions
from noodle_ray.resources import NodeResources

WORKERS = (
    NodeOptions("127.0.0.3", "gpu-a", NodeResources.of(cpus=4, memory="8GiB", gpus=2, accelerator_type="A100"), True),
    NodeOptions("127.0.0.4", "gpu-b", NodeResources.of(cpus=4, memory="16GiB", gpus=4, accelerator_type="L4"), True),
)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--audio", type=Path, help="a recording of speech, where Debian's cannot be fetched")
    given = options.parse_args()
    started = time.monotonic()

    def progress(what: str) -> None:
        console.print(f"[dim]{time.monotonic() - started:5.1f} s[/dim]  {what}", highlight=False)

    job = [sys.executable, str(Path(__file__).with_name("first_light.py"))]
    if given.audio:
        job += ["--audio", str(given.audio)]
    with local_cluster(UpOptions(workers=WORKERS), progress) as cluster:
        progress("running the main job: examples/first_light.py")
        ended = subprocess.run(job, env=cluster.environment(), check=False).returncode
    progress("done, everything that was started has ended" if ended == 0 else f"the main job failed ({ended})")
    if ended:
        raise SystemExit(ended)


if __name__ == "__main__":
    sys.exit(with_clear_errors(main))
