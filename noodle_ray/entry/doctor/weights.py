"""Whether the encoders' weights are there and whole."""

from __future__ import annotations

from pathlib import Path

from noodle_ray.entry.doctor.finding import Finding, fail, ok
from noodle_ray.errors import NoodleError


def check_weights(pack: str, cache_dir: Path) -> Finding:
    """Hashes every file of the pack (a second or two)."""
    from noodle_ray.fusion_models.packs import BASE, check_pack

    advice = "`noodle models fetch`" if pack == BASE else f"`noodle models check --pack {pack}` says what is wrong"
    try:
        problems = check_pack(pack, cache_dir)
    except NoodleError as error:
        return fail("weights", error.message, advice)
    if problems:
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        return fail("weights", problems[0] + more, advice)
    return ok("weights", f"the pack {pack} is intact")
