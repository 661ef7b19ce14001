"""sshd on hosts made of namespaces, and a key that opens them: so that what reaches machines by ssh can be tried."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from noodle_ray.entry.bench.hosts import Host
from noodle_ray.errors import Unavailable

SSHD = "/usr/sbin/sshd"
TOOLS = ("ssh", "ssh-keygen", "rsync", SSHD)

_CONFIGURATION = """Port 22
HostKey /etc/ssh/host_key
AuthorizedKeysFile /etc/ssh/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
StrictModes no
MaxSessions 100
MaxStartups 100
Subsystem sftp internal-sftp
"""

_START = f"""
set -eu
rm -f /etc/ssh/host_key
ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/host_key
printf %s "$1" > /etc/ssh/authorized_keys
printf %s "$2" > /etc/ssh/sshd_config_here
mkdir -p /run/sshd
{SSHD} -f /etc/ssh/sshd_config_here -E /var/log/sshd.log
"""


def why_not() -> str:
    """Why there can be no ssh here; "" where there can."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"{', '.join(missing)}: not installed (Debian: openssh-server, rsync)" if missing else ""


def serve_ssh(hosts: Sequence[Host], folder: Path) -> Path:
    """Starts sshd on each host, and gives the file of a private key with which root gets in.

    The key is made in the folder. Raises Unavailable.
    """
    if reason := why_not():
        raise Unavailable(f"no ssh: {reason}")
    key = folder / "host-key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    public = key.with_suffix(".pub").read_text()
    for host in hosts:
        host.run("/bin/bash", "-c", _START, "bash", public, _CONFIGURATION)
    return key
