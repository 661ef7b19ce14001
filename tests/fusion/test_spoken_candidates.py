"""Candidates that may have been read aloud: which are scored, and what cannot be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from noodle_ray.entry.training.datasets import SpeechSet
from noodle_ray.errors import InvalidInput
from noodle_ray.fusion.decoding import decode_audio
from noodle_ray.fusion.reading import Reading
from noodle_ray.fusion_models.audio import LIKELIHOOD, SPELLING, SpeechEncoder, load_whisper
from noodle_ray.fusion_models.encoders import ModalityEncoder
from noodle_ray.fusion_models.packs import Pack
from noodle_ray.fusion_models.quantised import check_precision
from noodle_ray.fusion_models.spoken_candidates import ALIKE, OPENING, SCORED_TOKENS, shortlist

Encoders = dict[str, ModalityEncoder]
NATS = 1.5
"""By how much int8 and bf16 may move a score."""


def test_a_shortlist_takes_what_is_spelt_alike_and_what_begins_alike() -> None:
    alike, openings = np.linspace(1, 0, 100), np.linspace(0, 50, 100)
    chosen = shortlist(alike, openings, [3] * 100)
    assert chosen == [*range(ALIKE), *range(100 - OPENING, 100)]


def test_a_shortlist_fits_and_leaves_out_what_cannot_be_scored() -> None:
    even = np.ones(4)
    assert shortlist(even, even, [0, 2, SCORED_TOKENS + 1, 3]) == [1, 3]
    assert shortlist(even, even, [0, 0, 0, 3]) == []
    assert shortlist(even[:1], even[:1], [3]) == [0]
    assert shortlist(even[:0], even[:0], []) == []
    assert sum(shortlist(even, even, [SCORED_TOKENS // 2] * 4)) == 1


def heard(encoders: Encoders, speech: SpeechSet, *candidates: str) -> Reading:
    return encoders["audio"].encode(decode_audio(speech["transfer"].path.read_bytes()), candidates)


RIGHT = "Please hold while I try that extension."


def test_the_right_one_is_found_among_a_thousand(encoders: Encoders, speech: SpeechSet) -> None:
    texts = [*(prompt.transcript for prompt in speech.prompts if prompt.name != "transfer"), RIGHT]
    reading = heard(encoders, speech, *texts, *(f"{text} {number}" for number, text in enumerate(texts[:460])))
    assert reading.scores is not None
    assert int(reading.scores.argmax()) == len(texts) - 1
    assert set(reading.sources) == {LIKELIHOOD, SPELLING}
    assert all(values.shape == reading.scores.shape for values in reading.sources.values())


@pytest.mark.parametrize("odd", ["", "...", " ", "\ud800", "\x00", "é" * 5000, "word " * 1000, "中文"])
def test_odd_candidates_are_no_likelier_than_the_right_one(encoders: Encoders, speech: SpeechSet, odd: str) -> None:
    reading = heard(encoders, speech, odd, RIGHT, "Goodbye.")
    assert reading.scores is not None
    assert np.isfinite(reading.scores).all()
    assert int(reading.scores.argmax()) == 1


def test_nothing_to_compare_gives_no_likelihood(encoders: Encoders, speech: SpeechSet) -> None:
    assert heard(encoders, speech, "", "...").scores is None
    assert set(heard(encoders, speech, "", "...").sources) == {SPELLING}
    assert heard(encoders, speech).sources == {}
    assert heard(encoders, speech, RIGHT).scores is not None


def test_preparing_changes_nothing_but_the_time(base: Pack, encoders: Encoders, speech: SpeechSet) -> None:
    where = {"local_files_only": True}
    fresh = SpeechEncoder(load_whisper(base.directory / "audio", **where), encoders["text"], "fresh")  # type: ignore[arg-type]
    fresh.prepare((RIGHT, "Goodbye.", "", "word " * 1000))
    samples = decode_audio(speech["transfer"].path.read_bytes())
    ours, theirs = fresh.encode(samples, (RIGHT, "Goodbye.")), heard(encoders, speech, RIGHT, "Goodbye.")
    assert np.allclose(ours.scores, theirs.scores, atol=NATS)  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_every_precision_scores_as_fp32_does(base: Pack, encoders: Encoders, speech: SpeechSet, precision: str) -> None:
    names = ["transfer", "vm-sorry", "conf-locked", "at-tone-time-exactly"]
    candidates = tuple(speech[name].transcript for name in names)
    read = []
    for kind in ("fp32", precision):
        whisper = load_whisper(base.directory / "audio", precision=kind, local_files_only=True)
        encoder = SpeechEncoder(whisper, encoders["text"], kind)  # type: ignore[arg-type]
        read.append([encoder.encode(decode_audio(speech[name].path.read_bytes()), candidates) for name in names])
    for index, (exact, ours) in enumerate(zip(*read, strict=True)):
        assert exact.scores is not None
        assert ours.scores is not None
        assert int(exact.scores.argmax()) == int(ours.scores.argmax()) == index
        assert ours.scores[index] == pytest.approx(exact.scores[index], abs=NATS)
        assert ours.seen.lower().strip(".!") == exact.seen.lower().strip(".!")


def test_a_tree_gives_each_row_what_it_has_alone(base: Pack, speech: SpeechSet) -> None:
    whisper = load_whisper(base.directory / "audio", precision="fp32", local_files_only=True)
    with torch.inference_mode():
        memory = whisper.listen(decode_audio(speech["transfer"].path.read_bytes()))
        rows = [whisper.tokens_of(text) for text in (RIGHT, "Please hold.", "Goodbye.", "Please")]
        together = whisper.log_likelihoods(memory, rows)
        alone = [whisper.log_likelihoods(memory, [row])[0] for row in rows]
    assert np.allclose(together, alone, atol=1e-3)


@pytest.mark.parametrize(("precision", "device"), [("fp8", "cpu"), ("fp32", "tpu"), ("int8", "cuda")])
def test_what_is_not_to_be_had_is_refused(precision: str, device: str) -> None:
    with pytest.raises(InvalidInput):
        check_precision(precision, device)
