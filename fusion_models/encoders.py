"""Which class reads which kind of encoder, and how a pack's encoders share the anchor space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from noodle_ray.errors import InvalidInput, NotFound
from noodle_ray.fusion.reading import Reading
from noodle_ray.fusion_models.packs import Pack

if TYPE_CHECKING:
    from noodle_ray.fusion_models.text import SentenceModel
    from noodle_ray.fusion_models.vision import TwoTowerModel

AUTO = "auto"

# Each loader imports its own encoder: torch and transformers take seconds, and a replica needs one encoder only.


class ModalityEncoder(Protocol):
    """Reads one modality in this process. `candidates` are for encoders that score them on their own."""

    def encode(self, content: Any, candidates: tuple[str, ...] = ()) -> Reading: ...


def load_encoder(pack: Pack, modality: str, precision: str = AUTO, device: str = "cpu") -> ModalityEncoder:
    """The pack's encoder for a modality, in a precision (of PRECISIONS, or what is best here) on a device.

    Raises NotFound where the pack has none, InvalidInput for a wrong kind, precision or device.
    """
    kind, source, where = located(pack, modality)
    if (modality, kind) not in LOADERS:
        raise InvalidInput.of(f"encoders.{modality}.kind", f"is none of {', '.join(kinds_of(modality))}", kind)
    return LOADERS[modality, kind](pack, source, where, Running(chosen_precision(modality, precision, device), device))


@dataclass(frozen=True, slots=True)
class Running:
    """How an encoder's network runs."""

    precision: str
    device: str


def chosen_precision(modality: str, precision: str, device: str) -> str:
    """Of "auto": on a CPU int8 for speech, which errs a little more often for it, and fp16; elsewhere fp32."""
    if precision != AUTO:
        return precision
    if device != "cpu":
        return "fp32"
    return "int8" if modality == "audio" else "fp16"


def kinds_of(modality: str) -> list[str]:
    return [kind for known, kind in LOADERS if known == modality]


def located(pack: Pack, modality: str) -> tuple[str, Any, dict[str, Any]]:
    """Kind, where the weights are, and what `from_pretrained` needs to find them."""
    if fetched := pack.fetched(modality):
        return fetched.kind, pack.directory / fetched.folder, {"local_files_only": True}
    if named := pack.pretrained(modality):
        return named.kind, named.source, {"revision": named.revision} if named.revision else {}
    raise NotFound("encoder", f"{pack.name}/{modality}", pack.modalities)


def load_anchor(pack: Pack, precision: str = "fp32", device: str = "cpu") -> SentenceModel | TwoTowerModel:
    """The model that places candidates and transcripts: the text encoder's."""
    kind, source, where = located(pack, "text")
    if kind == "two-towers":
        from noodle_ray.fusion_models.vision import TwoTowerModel

        return TwoTowerModel.load(source, **where)
    from noodle_ray.fusion_models.text import SentenceModel

    return SentenceModel.load(source, precision, device, **where)


def _shares_the_anchor(pack: Pack, modality: str) -> bool:
    return located(pack, modality)[:2] == located(pack, "text")[:2]


def _text(pack: Pack, source: Any, where: dict[str, Any], running: Running) -> ModalityEncoder:
    from noodle_ray.fusion_models.text import TextEncoder

    return TextEncoder(load_anchor(pack, running.precision, running.device), pack.version("text"))


def _code(pack: Pack, source: Any, where: dict[str, Any], running: Running) -> ModalityEncoder:
    from noodle_ray.fusion_models.code import CodeEncoder
    from noodle_ray.fusion_models.code_map import shipped_map
    from noodle_ray.fusion_models.text import SentenceModel

    version, anchored = pack.version("code"), _shares_the_anchor(pack, "code")
    model = SentenceModel.load(source, running.precision, running.device, **where)
    return CodeEncoder(model, version, anchored, shipped_map(version) if anchored else None)


def _class_mixture(pack: Pack, source: Any, where: dict[str, Any], running: Running) -> ModalityEncoder:
    from noodle_ray.fusion_models.files import sha256_of
    from noodle_ray.fusion_models.names_head import HEAD, NamesHead
    from noodle_ray.fusion_models.vision import ClassMixtureEncoder, LearnedProjectionEncoder

    version = pack.version("vision")
    if HEAD.is_file() and (head := NamesHead.load(HEAD)).network == sha256_of(source / "model.safetensors"):
        return LearnedProjectionEncoder.load_with(head, source, version, running.precision, running.device)
    return ClassMixtureEncoder.load(
        source, version, running.precision, running.device
    )  # the head was trained on other weights' states, or is not there


def _two_towers(pack: Pack, source: Any, where: dict[str, Any], running: Running) -> ModalityEncoder:
    from noodle_ray.fusion_models.vision import TwoTowerEncoder, TwoTowerModel

    model = TwoTowerModel.load(source, **where)
    return TwoTowerEncoder(model, pack.version("vision"), _shares_the_anchor(pack, "vision"))


def _speech(pack: Pack, source: Any, where: dict[str, Any], running: Running) -> ModalityEncoder:
    from noodle_ray.fusion_models.audio import SpeechEncoder, load_whisper

    whisper = load_whisper(source, running.precision, running.device, **where)
    anchor = load_anchor(pack, chosen_precision("text", AUTO, running.device), running.device)
    return SpeechEncoder(whisper, anchor, pack.version("audio"))


LOADERS: dict[tuple[str, str], Callable[[Pack, Any, dict[str, Any], Running], ModalityEncoder]] = {
    ("text", "sentence"): _text,
    ("text", "two-towers"): _text,
    ("code", "sentence"): _code,
    ("vision", "class-mixture"): _class_mixture,
    ("vision", "two-towers"): _two_towers,
    ("audio", "whisper"): _speech,
}
"""Every kind of encoder, by modality and name: a new one is a class with `encode` and a line here."""
