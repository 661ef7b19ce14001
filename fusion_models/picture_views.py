"""Other views of a drawing, for training: moved, turned, recoloured, outlined, on other grounds; each a seeded draw."""

from __future__ import annotations

import io
from random import Random

from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps

SIDE = 224
_WHITE = (255, 255, 255)


def view(picture: bytes, random: Random, may_mirror: bool) -> Image.Image:
    """A view of a drawing with a transparent ground (PNG), SIDE pixels a side, in red, green and blue."""
    layer = _placed(Image.open(io.BytesIO(picture)).convert("RGBA"), random, may_mirror)
    ground = Image.new("RGBA", layer.size, (*_ground(random), 255))
    ground.alpha_composite(layer)
    return _restyled(_recoloured(ground.convert("RGB"), layer.getchannel("A"), random), random)


def _placed(drawing: Image.Image, random: Random, may_mirror: bool) -> Image.Image:
    """Mirrored, turned, made larger or smaller and moved."""
    if may_mirror and random.random() < 0.3:
        drawing = ImageOps.mirror(drawing)
    if random.random() < 0.5:
        drawing = drawing.rotate(random.uniform(-15, 15), Image.Resampling.BICUBIC)
    height = int(SIDE * random.uniform(0.6, 1.12))
    width = int(height * random.uniform(0.9, 1.1))
    drawing = drawing.resize((width, height), Image.Resampling.BILINEAR)
    layer = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
    offsets = [(SIDE - side) // 2 + int(random.uniform(-0.06, 0.06) * SIDE) for side in (width, height)]
    layer.paste(drawing, (offsets[0], offsets[1]))
    return layer


def _ground(random: Random) -> tuple[int, int, int]:
    """White mostly, else something light, else anything."""
    kind = random.random()
    if kind < 0.6:
        return _WHITE
    lowest = 200 if kind < 0.8 else 0
    return random.randint(lowest, 255), random.randint(lowest, 255), random.randint(lowest, 255)


def _recoloured(image: Image.Image, drawing: Image.Image, random: Random) -> Image.Image:
    """Another hue for the drawing (where its mask says), then other saturation, brightness and contrast for all."""
    if random.random() < 0.35:
        shift = random.randint(-40, 40) if random.random() < 0.6 else random.randint(0, 255)
        hue, saturation, value = image.convert("HSV").split()
        shifted = hue.point([(level + shift) % 256 for level in range(256)])
        image = Image.composite(Image.merge("HSV", (shifted, saturation, value)).convert("RGB"), image, drawing)
    if random.random() < 0.5:
        image = ImageEnhance.Color(image).enhance(random.uniform(0.3, 1.6))
    if random.random() < 0.4:
        image = ImageEnhance.Brightness(image).enhance(random.uniform(0.75, 1.2))
    if random.random() < 0.4:
        image = ImageEnhance.Contrast(image).enhance(random.uniform(0.7, 1.4))
    return image


def _restyled(image: Image.Image, random: Random) -> Image.Image:
    """As other artists or printers would have it: grey, with dark outlines, in few colours, out of focus."""
    if random.random() < 0.1:
        image = image.convert("L").convert("RGB")
    if random.random() < 0.35:
        image = _outlined(image, random.choice((3, 5)))
    if random.random() < 0.1:
        image = ImageOps.posterize(image, random.choice((2, 3)))
    if random.random() < 0.15:
        image = image.filter(ImageFilter.GaussianBlur(random.uniform(0.5, 2)))
    return image


def _outlined(image: Image.Image, thickness: int) -> Image.Image:
    """With a dark line wherever the brightness changes."""
    grey = image.convert("L")
    change = ImageChops.subtract(
        grey.filter(ImageFilter.MaxFilter(thickness)), grey.filter(ImageFilter.MinFilter(thickness))
    )
    lines = change.point([255 - min(255, 3 * level) for level in range(256)])
    return ImageChops.multiply(image, lines.convert("RGB"))
