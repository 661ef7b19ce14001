"""What every test meets: logging as it was before, and the public traces where they are at hand."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

ROOT = Path(__file__).parents[1]

# How long one example takes is the machine's affair: a busy one is no failure.
settings.register_profile("noodle", deadline=None)
settings.load_profile("noodle")


@pytest.fixture(autouse=True)
def _logging_of_its_own() -> Iterator[None]:
    """A command under test sets its process's logging up, on a stream that closes with the test."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def traces_dir() -> Path:
    """The folder of traces: in SHARED_DATA, or in `shared` beside the checkout."""
    directory = Path(os.environ.get("SHARED_DATA", ROOT.parent / "shared")) / "traces"
    if not directory.is_dir():
        pytest.skip(f"no public traces at {directory}; SHARED_DATA names the folder that has traces/")
    return directory
