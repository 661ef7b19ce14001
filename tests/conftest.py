"""The public traces, where they are at hand."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def traces_dir() -> Path:
    """The folder of traces: in SHARED_DATA, or in `shared` beside the checkout."""
    directory = Path(os.environ.get("SHARED_DATA", ROOT.parent / "shared")) / "traces"
    if not directory.is_dir():
        pytest.skip(f"no public traces at {directory}; SHARED_DATA names the folder that has traces/")
    return directory
