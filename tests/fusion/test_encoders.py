"""The base pack's encoders on real input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor

from noodle_ray.entry.training.datasets import Photograph, SpeechSet
from noodle_ray.errors import InvalidInput, NotFound
from noodle_ray.fusion.calibration import load_calibration
from noodle_ray.fusion.decoding import decode_audio, decode_image
from noodle_ray.fusion.fusing import evidence
from noodle_ray.fusion.reading import Reading
from noodle_ray.fusion.rule import combined
from noodle_ray.fusion_models.audio import SpeechEncoder, load_whisper
from noodle_ray.fusion_models.code import words_of
from noodle_ray.fusion_models.encoders import ModalityEncoder, load_encoder
from noodle_ray.fusion_models.packs import Pack, PretrainedEncoder
from noodle_ray.fusion_models.text import TextEncoder
from noodle_ray.fusion_models.vision import ClassMixtureEncoder

Encoders = dict[str, ModalityEncoder]


def words(sentence: str) -> list[str]:
    return "".join(c if c.isalnum() else " " for c in sentence.lower()).split()


def heard(encoders: Encoders, speech: SpeechSet, name: str, *candidates: str) -> Reading:
    return encoders["audio"].encode(decode_audio(speech[name].path.read_bytes()), candidates)


def test_every_encoder_gives_unit_vectors_in_one_space(encoders: Encoders) -> None:
    samples, pixels = np.zeros(16_000, np.float32), np.zeros((64, 64, 3), np.uint8)
    inputs = {"text": "a cat", "code": "def f(): pass", "vision": pixels, "audio": samples}
    for modality, content in inputs.items():
        reading = encoders[modality].encode(content)
        assert reading.embedding is not None
        assert reading.embedding.shape == (384,)
        assert np.linalg.norm(reading.embedding) == pytest.approx(1.0, abs=1e-4)
        assert 0 <= reading.certainty <= 1
        assert reading.encoder.startswith("base/")
        assert reading.scores is None


def test_sentences_that_mean_the_same_lie_close(encoders: Encoders) -> None:
    text = encoders["text"]
    assert isinstance(text, TextEncoder)
    one, same, other = text.embed(
        ["A cat sleeps on the sofa.", "The kitten is napping on a couch.", "Stock prices fell."]
    )
    assert one @ same > 0.5 > 0.2 > one @ other
    assert text.embed([]).shape == (0, 384)


def test_batching_does_not_change_embeddings(encoders: Encoders) -> None:
    text = encoders["text"]
    assert isinstance(text, TextEncoder)
    sentences = ["short", "a rather longer sentence about nothing in particular", "x " * 3000]
    together = text.embed(sentences)
    for row, sentence in zip(together, sentences, strict=True):
        assert np.allclose(row, text.embed([sentence])[0], atol=1e-5)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("parse_HTTPDate(s2)", "parse http date s 2"),
        ("class XMLReader: pass", "class xml reader pass"),
        ("größe_in_Metern", "größe in metern"),
        ("+ - *", "+ - *"),
    ],
)
def test_code_is_read_as_words(code: str, expected: str) -> None:
    assert words_of(code) == expected


def test_code_lies_near_what_it_does(encoders: Encoders) -> None:
    text = encoders["text"]
    assert isinstance(text, TextEncoder)
    reading = encoders["code"].encode("def find_max(values):\n    return sorted(values)[-1]")
    near, far = text.embed(["find the largest value", "send an e-mail message"])
    assert near @ reading.embedding > far @ reading.embedding + 0.2


@pytest.mark.parametrize(
    ("name", "expected"),
    [("chelsea", "cat"), ("coffee", "espresso"), ("camera", "tripod"), ("motorcycle_left", "moped")],
)
def test_photographs_are_recognised(
    encoders: Encoders, photographs: dict[str, Photograph], name: str, expected: str
) -> None:
    vision = encoders["vision"]
    assert isinstance(vision, ClassMixtureEncoder)
    best = vision.classify(decode_image(photographs[name].path.read_bytes()))
    assert expected in best[0][0]
    assert best[0][1] > 0.5
    assert best == sorted(best, key=lambda item: -item[1])


@pytest.mark.parametrize(
    "name", ["at-tone-time-exactly", "transfer", "vm-sorry", "one-moment-please", "conf-locked", "pls-hold-while-try"]
)
def test_speech_is_transcribed(encoders: Encoders, speech: SpeechSet, name: str) -> None:
    reading = heard(encoders, speech, name)
    expected, got = words(speech[name].transcript), words(reading.seen)
    missed = len(set(expected) - set(got))
    assert missed <= 0.2 * len(set(expected)), f"{reading.seen!r} for {speech[name].transcript!r}"
    assert reading.certainty > 0.5


def test_a_sentence_read_aloud_is_found_among_similar_ones(encoders: Encoders, speech: SpeechSet) -> None:
    right = speech["vm-next"].transcript
    candidates = (right.replace("6", "4"), right, right.replace("next", "last"), "Goodbye.")
    reading = heard(encoders, speech, "vm-next", *candidates)
    assert reading.scores is not None
    assert int(reading.scores.argmax()) == 1
    assert reading.unlikeliness is not None
    assert reading.unlikeliness < 5
    assert heard(encoders, speech, "vm-next", "a red rose", "the deep sea").unlikeliness > 20  # type: ignore[operator]


def test_scores_do_not_depend_on_what_was_asked_before(encoders: Encoders, speech: SpeechSet) -> None:
    first = heard(encoders, speech, "transfer", "Please hold.", "Goodbye.")
    heard(encoders, speech, "vm-sorry", "Please hold.", "I am sorry.")
    again = heard(encoders, speech, "transfer", "Please hold.", "Goodbye.")
    assert np.array_equal(first.scores, again.scores)  # type: ignore[arg-type]


def test_silence_and_noise_end_within_the_bound(encoders: Encoders) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000 * 3).astype(np.float32)
    for samples in (np.zeros(160, np.float32), np.zeros(16_000, np.float32), noise):
        reading = encoders["audio"].encode(samples, ("yes", "no"))
        assert np.isfinite(reading.embedding).all()
        assert len(reading.seen) < 200


def test_a_full_window_is_heard(encoders: Encoders) -> None:
    assert encoders["audio"].encode(np.zeros(30 * 16_000, np.float32)).embedding is not None


def test_special_tokens_in_candidates_are_plain_text(encoders: Encoders, speech: SpeechSet) -> None:
    reading = heard(encoders, speech, "transfer", "<|endoftext|>", "Please hold while I try that extension.")
    assert reading.scores is not None
    assert reading.scores[1] > reading.scores[0]


def test_many_long_candidates_stay_bounded(encoders: Encoders, speech: SpeechSet) -> None:
    candidates = tuple(f"{n} " + "word " * 99 for n in range(20))
    assert heard(encoders, speech, "transfer", *candidates).scores is None


def test_the_features_are_whispers(base: Pack) -> None:
    whisper = load_whisper(base.directory / "audio", precision="fp32", local_files_only=True)
    samples = np.random.default_rng(1).normal(0, 0.1, 30 * 16_000).astype(np.float32)
    expected = WhisperFeatureExtractor()(samples, sampling_rate=16_000, return_tensors="pt").input_features[0]
    assert torch.allclose(whisper._log_mel(torch.from_numpy(samples)).T, expected, atol=1e-3)


def test_eight_bits_hear_what_thirty_two_hear(base: Pack, encoders: Encoders, speech: SpeechSet) -> None:
    exact = SpeechEncoder(
        load_whisper(base.directory / "audio", precision="fp32", local_files_only=True),
        encoders["text"],  # type: ignore[arg-type]
        "exact",
    )
    names = ["transfer", "vm-sorry", "conf-locked", "at-tone-time-exactly"]
    for name in names:
        samples = decode_audio(speech[name].path.read_bytes())
        assert words(exact.transcribe(samples).text) == words(heard(encoders, speech, name).seen)
    candidates = tuple(speech[name].transcript for name in names)
    ours, theirs = heard(encoders, speech, "transfer", *candidates), exact.encode(samples, candidates)
    assert ours.scores is not None
    assert theirs.scores is not None
    assert int(ours.scores.argmax()) == 0
    assert int(theirs.scores.argmax()) == 3


def test_four_senses_agree_where_each_alone_is_wrong(
    encoders: Encoders, speech: SpeechSet, photographs: dict[str, Photograph]
) -> None:
    import inspect
    import threading

    candidates = (
        "waiting with a cup of coffee",
        "an espresso machine",
        "waiting for a phone call",
        "a calendar of meetings",
        "a lock shared by threads",
        "a cat asleep on a chair",
    )
    inputs = {
        "text": "A short break until the next meeting starts.",
        "audio": decode_audio(speech["pls-hold-while-try"].path.read_bytes()),
        "vision": decode_image(photographs["coffee"].path.read_bytes()),
        "code": inspect.getsource(threading.Barrier.wait),
    }
    text = encoders["text"]
    assert isinstance(text, TextEncoder)
    places, calibration = text.embed(candidates), load_calibration("base")
    alone = {}
    for modality, content in inputs.items():
        found = evidence(modality, encoders[modality].encode(content, candidates), places, calibration)
        assert found is not None
        alone[modality] = found
    assert all(int(found.argmax()) != 0 for found in alone.values())
    together = combined({}, alone)
    assert int(together.argmax()) == 0
    assert together[0] > 0.7


def test_a_modality_that_a_pack_lacks_is_not_found(base: Pack) -> None:
    with pytest.raises(NotFound, match="base/smell"):
        load_encoder(base, "smell")


def test_a_kind_that_does_not_read_a_modality_is_refused(tmp_path: object, base: Pack) -> None:
    from noodle_ray.fusion_models.packs import Description

    named = {"text": PretrainedEncoder(kind="whisper", source="somewhere")}
    pack = Pack("odd", base.directory, description=Description(encoders=named))
    with pytest.raises(InvalidInput, match="sentence, two-towers"):
        load_encoder(pack, "text")
