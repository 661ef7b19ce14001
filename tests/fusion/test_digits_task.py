"""The digits task: noise as strong as it says, parts that share no picture, cases and rivals that fit together."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from noodle_ray.entry.bench.fusion import digits, digits_data
from noodle_ray.entry.bench.fusion.digits_data import LEVELS, PICTURES, Encoded, Level, noisy_picture, noisy_sound
from noodle_ray.fusion.decoding import decode_audio, decode_image
from noodle_ray.fusion.fitting import fit_rule
from noodle_ray.fusion.selective import answer_of


def test_parts_share_no_picture() -> None:
    parts = {part: set(digits_data._pictures_of(part, 1797).tolist()) for part in PICTURES}
    assert {part: len(chosen) for part, chosen in parts.items()} == PICTURES
    assert not any(parts[one] & parts[other] for one, other in combinations(PICTURES, 2))


def test_a_clean_picture_is_the_original_and_noise_has_its_deviation() -> None:
    draw = np.random.default_rng(1)
    original = draw.random((8, 8))
    pixels = decode_image(noisy_picture(original, LEVELS[0], draw))[:, :, 0].astype(float)
    assert np.abs(pixels - (100 + 40 * original)).max() <= 0.5
    noisy = [decode_image(noisy_picture(original, Level(0.6, None), draw))[:, :, 0] for _ in range(200)]
    assert np.std((np.array(noisy) - pixels) / 40) == pytest.approx(0.6, rel=0.03)


@pytest.mark.parametrize("snr_db", [5.0, -5.0, -10.0])
def test_a_sound_has_the_ratio_of_signal_to_noise(snr_db: float) -> None:
    clean = np.sin(np.arange(16_000) / 9).astype(np.float32) / 4
    heard = decode_audio(noisy_sound(clean, Level(0.0, snr_db), np.random.default_rng(1)))
    share = float(clean @ heard / (clean @ clean))  # what the clip was scaled by
    noise = heard - share * clean
    ratio = 10 * np.log10(np.mean((share * clean) ** 2) / np.mean(noise**2))
    assert np.abs(heard).max() <= 1
    assert ratio == pytest.approx(snr_db, abs=0.6)


def made_up(seed: int, count: int, noise: float) -> Encoded:
    """The first numbers of a row say which digit it is, the more faintly the more noise there is."""
    draw = np.random.default_rng(seed)
    which = np.arange(count) % 10
    rows = draw.normal(0, 0.3 + noise, (2, count, 14)).astype(np.float32)
    rows[:, np.arange(count), which] += 2
    return Encoded(rows[0], rows[1], which)


def test_settings_hold_cases_labels_and_the_rival(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"fit": 200, "validation": 100, "test": 120}
    data = {
        (part, level): made_up(10 * level + index, count, LEVELS[level].sigma)
        for index, (part, count) in enumerate(counts.items())
        for level in range(len(LEVELS))
    }
    monkeypatch.setattr(digits, "encoded", lambda cache_dir, progress: data)
    monkeypatch.setattr(digits, "PICTURES", counts)
    settings = list(digits.TASK.settings(tmp_path, lambda line: None))
    assert [setting.name for setting in settings] == [level.name for level in LEVELS]
    for setting in settings:
        assert (len(setting.fit), len(setting.validation), len(setting.test)) == (50, 50, 120)
        assert set(setting.labels) == set(digits.WORDS)
        assert len(setting.rivals[digits.EARLY, digits.BOTH]) == 120
        rule = fit_rule(setting.fit, setting.validation)
        right = [answer_of(rule.posterior(case.scores), case.right).is_right for case in setting.test]
        assert np.mean(right) > 0.5
    assert settings[0].clean[0] == ("audio", "vision")
    assert not settings[1].clean
    assert {goal.metric for goal in settings[2].goals} == {"selective_accuracy_percent", "coverage_percent"}
