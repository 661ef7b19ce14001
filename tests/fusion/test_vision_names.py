"""Pictures by a learned projection: the head's file, its training, and the encoder that uses it."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from fusion_media import picture
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.nn import functional

from noodle_ray.entry.training.datasets import Photograph
from noodle_ray.errors import CorruptData, InvalidInput
from noodle_ray.fusion.calibration import UNFITTED, Calibration, Scale
from noodle_ray.fusion.decoding import Pixels, decode_image
from noodle_ray.fusion.fusing import evidence
from noodle_ray.fusion.reading import Reading
from noodle_ray.fusion_models import names_head
from noodle_ray.fusion_models.encoders import ModalityEncoder, load_encoder
from noodle_ray.fusion_models.mobilenet import folded, mobilenet_of
from noodle_ray.fusion_models.names_head import NamesHead, rounded
from noodle_ray.fusion_models.packs import Pack
from noodle_ray.fusion_models.picture_views import SIDE, view
from noodle_ray.fusion_models.pictures import DESCRIBED_WIDTH, PictureNetwork, flat_share, prepared
from noodle_ray.fusion_models.vision import ClassMixtureEncoder, LearnedProjectionEncoder, drawn_share
from noodle_ray.fusion_models.vision_training import Lessons, train

NAMES = tuple(f"name {number}" for number in range(8))


def lessons(seed: int = 0) -> Lessons:
    """Descriptions around eight centres, one a name."""
    random = torch.Generator().manual_seed(seed)
    right = torch.arange(1200) % len(NAMES)
    centres = torch.randn(len(NAMES), DESCRIBED_WIDTH, generator=random)
    noise = torch.randn(len(right), DESCRIBED_WIDTH, generator=random)
    places = functional.normalize(torch.randn(len(NAMES), 384, generator=random), dim=1)
    keywords = tuple((number, (number + 1) % 8) if number else () for number in range(8))
    return Lessons(centres[right] + 0.5 * noise, right, NAMES, places, keywords, places.flip(0))


@pytest.fixture(scope="module")
def head() -> NamesHead:
    torch.set_num_threads(1)
    return train(lessons(), "0" * 64, lambda line: None)


def noise(*shape: int) -> Pixels:
    return np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)


def drawing(side: int = 120) -> Pixels:
    pixels = np.full((side, side, 3), 255, np.uint8)
    pixels[side // 4 : side // 2, side // 4 :] = (200, 30, 30)
    return pixels


def test_what_was_taught_is_known_and_named(head: NamesHead) -> None:
    taught = lessons()
    embedded = head.embed(taught.described[:80])
    assert torch.allclose(embedded.norm(dim=1), torch.ones(80), atol=1e-5)
    assert (embedded @ taught.places.T).argmax(1).eq(taught.right[:80]).float().mean() > 0.8
    values, names = head.nearest(embedded[0], 3)
    assert names[0] == NAMES[0]
    assert values.tolist() == sorted(values.tolist(), reverse=True)


def test_the_same_lessons_give_the_same_head(head: NamesHead) -> None:
    again = train(lessons(), "0" * 64, lambda line: None)
    assert torch.equal(again.hide[0], head.hide[0])
    assert again.sharpness == head.sharpness


def test_a_head_comes_back_from_its_file(head: NamesHead, tmp_path: Path) -> None:
    head.save(tmp_path / "head.safetensors", seed=0)
    read = NamesHead.load(tmp_path / "head.safetensors")
    assert (read.names, read.blocks, read.network) == (head.names, head.blocks, head.network)
    assert len(read.version) == 12
    described = lessons().described[:20]
    assert (read.embed(described) * head.embed(described)).sum(1).min() > 0.995
    assert (tmp_path / "head.safetensors").stat().st_size < 2_500_000


def test_a_damaged_head_is_corrupt_data(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    path.write_bytes(b"no head at all")
    with pytest.raises(CorruptData, match="no head"):
        NamesHead.load(path)
    with pytest.raises(CorruptData):
        NamesHead.load(tmp_path / "missing")


@given(st.lists(st.lists(st.floats(-1e3, 1e3, width=32), min_size=3, max_size=3), min_size=1, max_size=4))
def test_eight_bits_are_off_by_half_a_level_at_most(rows: list[list[float]]) -> None:
    matrix = torch.tensor(rows)
    levels, scale = rounded(matrix)
    assert ((levels * scale - matrix).abs() <= scale * 0.5001 + 1e-6).all()


def test_drawings_are_flat_and_noise_is_not() -> None:
    assert flat_share(drawing()) > 0.9
    assert flat_share(noise(64, 64)) < 0.01
    assert flat_share(np.zeros((1, 5, 3), np.uint8)) == 1.0
    assert drawn_share(drawing()) == 1.0
    assert drawn_share(noise(64, 64)) == 0.0


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 255))
def test_one_colour_is_all_flat(height: int, width: int, level: int) -> None:
    assert flat_share(np.full((height, width, 3), level, np.uint8)) == 1.0


@pytest.mark.parametrize("seed", range(12))
def test_a_view_depends_on_its_seed_alone(seed: int) -> None:
    source = picture()
    one, again = (view(source, Random(seed), may_mirror=True) for _ in range(2))
    assert one.size == (SIDE, SIDE)
    assert one.mode == "RGB"
    assert one.tobytes() == again.tobytes()


def test_folded_norms_change_nothing_but_rounding(base: Pack) -> None:
    state = load_file(base.directory / "vision" / "model.safetensors")
    batch = torch.cat([prepared(drawing()), prepared(noise(300, 240))])
    with torch.inference_mode():
        exact = mobilenet_of(state)(batch)
        assert torch.allclose(folded(mobilenet_of(state))(batch), exact, atol=1e-4)


def test_brain_floats_see_nearly_the_same(base: Pack, photographs: dict[str, Photograph]) -> None:
    pixels = decode_image(photographs["coffee"].path.read_bytes())
    exact, rough = (
        PictureNetwork.load(base.directory / "vision", precision).see([pixels]) for precision in ("fp32", "bf16")
    )
    assert exact.described.shape == (1, DESCRIBED_WIDTH)
    assert int(exact.logits.argmax()) == int(rough.logits.argmax())
    assert functional.cosine_similarity(exact.pooled, rough.pooled).item() > 0.99


def test_an_unknown_precision_is_refused(base: Pack) -> None:
    with pytest.raises(InvalidInput, match="fp32, fp16"):
        PictureNetwork.load(base.directory / "vision", "fp8")


def test_the_pictures_are_read_the_same_together_and_alone(encoders: dict[str, ModalityEncoder]) -> None:
    vision = encoders["vision"]
    assert isinstance(vision, ClassMixtureEncoder)
    contents = [drawing(), noise(300, 200), np.zeros((40, 900, 3), np.uint8), drawing(60)] * 5
    together = vision.encode_many(contents)
    for content, reading in zip(contents[:4], together, strict=False):
        alone = vision.encode(content)
        assert np.array_equal(reading.embedding, alone.embedding)  # type: ignore[arg-type]
        assert reading.features is not None
        assert reading.seen.split("(")[0] == alone.seen.split("(")[0]
    assert vision.encode_many([]) == []


def with_head(base: Pack, head: NamesHead) -> LearnedProjectionEncoder:
    return LearnedProjectionEncoder.load_with(head, base.directory / "vision", "base/x")


def test_drawings_go_by_the_head_and_photographs_by_their_classes(
    base: Pack, head: NamesHead, photographs: dict[str, Photograph]
) -> None:
    learned, plain = with_head(base, head), ClassMixtureEncoder.load(base.directory / "vision", "base/x")
    drawn = learned.encode(drawing())
    assert drawn.seen.startswith("name ")
    assert drawn.encoder.startswith("base/x+names/")
    assert np.linalg.norm(drawn.embedding) == pytest.approx(1.0, abs=1e-5)  # type: ignore[arg-type]
    pixels = decode_image(photographs["chelsea"].path.read_bytes())
    assert np.array_equal(learned.encode(pixels).embedding, plain.encode(pixels).embedding)  # type: ignore[arg-type]
    assert "cat" in learned.encode(pixels).seen


def test_without_a_head_for_its_weights_a_pack_goes_by_classes(
    base: Pack, head: NamesHead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from noodle_ray.fusion_models import encoders

    monkeypatch.setattr(names_head, "HEAD", tmp_path / "none.safetensors")
    assert type(encoders.load_encoder(base, "vision")) is ClassMixtureEncoder
    head.save(tmp_path / "none.safetensors")
    assert type(load_encoder(base, "vision")) is ClassMixtureEncoder


def test_the_shipped_head_names_a_drawing_of_no_style_it_knows(base: Pack, cache_dir: Path) -> None:
    from noodle_ray.entry.training.emoji import load_emoji
    from noodle_ray.errors import Unavailable

    try:
        found = load_emoji(cache_dir)
    except Unavailable as error:
        pytest.skip(str(error))
    vision = load_encoder(base, "vision")
    assert isinstance(vision, LearnedProjectionEncoder)
    taught = [one for one in found.emoji if one.part == "training" and found.has(one, "fluent")][::40]
    seen = [vision.encode(decode_image(found.picture(one, "fluent"))).seen for one in taught]
    assert sum(one.name in text for one, text in zip(taught, seen, strict=True)) > len(taught) / 2


def test_drawings_have_a_scale_of_their_own() -> None:
    place = np.array([1.0, 0.0], np.float32)
    scales = {"vision": Scale(temperature=1.0), "vision:drawing": Scale(temperature=0.1)}
    calibration = Calibration(cosines=scales, presumption=UNFITTED.presumption)
    candidates = np.eye(2, dtype=np.float32)
    photograph, drawn = (
        evidence("vision", Reading("x", "", 1.0, place, kind=kind), candidates, calibration) for kind in ("", "drawing")
    )
    assert photograph is not None
    assert drawn is not None
    assert np.isclose(photograph[0] - photograph[1], 1.0)
    assert np.isclose(drawn[0] - drawn[1], 10.0)
