"""Artificial voices: three groups that share nothing, and speech that a recogniser understands."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from noodle_ray.entry.cli import data
from noodle_ray.entry.training import voices
from noodle_ray.errors import CorruptData, InvalidInput, NotFound, Unavailable
from noodle_ray.fusion_models.audio import SpeechEncoder
from noodle_ray.fusion_models.encoders import ModalityEncoder

SENTENCE = "Please hold the line, somebody will be with you in a minute."


@pytest.fixture(scope="module")
def synthesiser(cache_dir: Path) -> voices.Synthesiser:
    try:
        return voices.find_synthesiser(cache_dir)
    except (Unavailable, CorruptData) as error:
        pytest.skip(str(error))


def test_the_groups_share_no_voice_and_no_throat() -> None:
    groups = [voices.VOICES_TRAIN, voices.VOICES_VALIDATION, voices.VOICES_TEST]
    for one, other in combinations(groups, 2):
        assert not {voice.partition("+")[2] for voice in one} & {voice.partition("+")[2] for voice in other}
    assert len(set(voices.VOICES)) == len(voices.VOICES) == sum(map(len, groups))


def test_every_voice_sounds_different_and_the_same_each_time(synthesiser: voices.Synthesiser) -> None:
    spoken = {voice: synthesiser.speak("seven", voice) for voice in voices.VOICES}
    for samples in spoken.values():
        assert samples.dtype == np.float32
        assert 0.2 * 16_000 < len(samples) < 2 * 16_000
        assert 0.05 < np.abs(samples).max() <= 1
    assert len({samples.tobytes() for samples in spoken.values()}) == len(voices.VOICES)
    assert np.array_equal(synthesiser.speak("seven", voices.VOICES[0]), spoken[voices.VOICES[0]])


def test_speed_and_pitch_are_heard(synthesiser: voices.Synthesiser) -> None:
    voice = voices.VOICES_TRAIN[0]
    slow, fast = (synthesiser.speak(SENTENCE, voice, words_per_minute=words) for words in (120, 240))
    assert len(slow) > 1.5 * len(fast)
    assert not np.array_equal(synthesiser.speak(SENTENCE, voice, pitch=20), synthesiser.speak(SENTENCE, voice))


@pytest.mark.parametrize("voice", [voices.VOICES_TRAIN[1], voices.VOICES_VALIDATION[0], voices.VOICES_TEST[0]])
def test_a_recogniser_understands_them(
    synthesiser: voices.Synthesiser, encoders: dict[str, ModalityEncoder], voice: str
) -> None:
    audio = encoders["audio"]
    assert isinstance(audio, SpeechEncoder)
    heard = audio.transcribe(synthesiser.speak(SENTENCE, voice)).text.lower()
    assert len({"please", "hold", "line", "somebody", "minute"} & set(heard.replace(",", "").strip(".").split())) >= 3


def test_what_cannot_be_spoken_is_refused(synthesiser: voices.Synthesiser) -> None:
    with pytest.raises(NotFound, match="en-us"):
        synthesiser.speak("seven", "en-us+nobody")
    with pytest.raises(InvalidInput, match="words_per_minute"):
        synthesiser.speak("seven", voices.VOICES[0], words_per_minute=0)
    with pytest.raises(InvalidInput, match="pitch"):
        synthesiser.speak("seven", voices.VOICES[0], pitch=100)
    with pytest.raises(InvalidInput, match="pronounced"):
        synthesiser.speak("", voices.VOICES[0])


def test_text_is_never_taken_for_an_option(synthesiser: voices.Synthesiser) -> None:
    assert len(synthesiser.speak("--version", voices.VOICES[0])) > 4000


def test_the_version_is_known(synthesiser: voices.Synthesiser) -> None:
    assert synthesiser.version()[0].isdigit()


def test_without_espeak_and_apt_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="install espeak-ng"):
        voices.find_synthesiser(tmp_path / "cache")
    (tmp_path / "cache" / "data" / "voices").mkdir(parents=True)
    with pytest.raises(Unavailable, match="brought again"):
        voices.find_synthesiser(tmp_path / "cache")


def test_an_espeak_that_fails_is_told_in_its_own_words(tmp_path: Path) -> None:
    program = tmp_path / "espeak-ng"
    program.write_text("#!/bin/sh\necho 'no data' >&2; exit 1\n")
    program.chmod(0o755)
    with pytest.raises(Unavailable, match="no data"):
        voices.Synthesiser((str(program),)).speak("seven", voices.VOICES[0])


def test_the_command_brings_them(synthesiser: voices.Synthesiser) -> None:
    result = CliRunner().invoke(data.app, ["fetch", "voices", "--json"], catch_exceptions=False)
    assert json.loads(result.stdout)["voices"] == list(voices.VOICES)
    assert "28 voices" in CliRunner().invoke(data.app, ["fetch", "voices"]).stdout
