"""Reading pictures and masks of class numbers from files, and fitting boxes into them; every fault names its file."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError, features
from PIL.ExifTags import Base
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor

from tutored.errors import InputError, misread
from tutored.files import regular
from tutored.labels import LabelSpace
from tutored.types import IGNORE

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

INK: Colour = (33, 33, 33)
PAPER: Colour = (255, 255, 255)
LETTERS = 1 / 30
"""Size of letters as a share of a picture's long side."""


def voc_palette() -> NDArray[np.uint8]:
    """PASCAL VOC's colours, uint8 [256, 3]: a class number's bits, dealt to red, green and blue in turn."""
    numbers = np.arange(256)
    channels = [sum(((numbers >> (3 * bit + first)) & 1) << (7 - bit) for bit in range(3)) for first in range(3)]
    return np.stack(channels, axis=1).astype(np.uint8)


def borders(classes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels with another class to their left, right, top or bottom."""
    found = np.zeros(classes.shape, np.bool_)
    for ours, theirs in ((found, classes), (found.T, classes.T)):
        change = theirs[1:] != theirs[:-1]
        ours[1:] |= change
        ours[:-1] |= change
    return found


def colour_of(number: int) -> Colour:
    """The colour of a class; those beyond the palette have its colours again."""
    red, green, blue = voc_palette()[number % 256].tolist()
    return red, green, blue


@lru_cache(maxsize=8)
def font_for(side: float) -> Font:
    """The font for a picture whose long side has so many pixels: matplotlib's, or Pillow's, which has Latin alone."""
    size = max(12, side * LETTERS)
    found = find_spec("matplotlib")
    if found and found.origin:
        path = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if path.is_file():
            return ImageFont.truetype(path, size)
    return ImageFont.load_default(size)


@cache
def has_letters(text: str) -> bool:
    """Whether the font has all letters of a text; for others it draws an empty box."""
    font = font_for(0)
    absent = bytes(font.getmask("\U0010fffe"))
    return all(letter.isspace() or bytes(font.getmask(letter)) != absent for letter in text)


def shown_name(name: str, number: int) -> str:
    """A class's name, or its number where the font lacks the letters."""
    return name if has_letters(name) else str(number)


def tag_size(text: str, font: Font) -> tuple[float, float]:
    """Width and height of a tag; all tags of one font are equally high."""
    upper, lower = font.getbbox("lÅ")[1], font.getbbox("lg")[3]
    height = float(lower - upper) * 1.3
    return font.getlength(text) + height / 2, height


def draw_tag(pen: ImageDraw.ImageDraw, corner: tuple[float, float], text: str, colour: Colour, font: Font) -> None:
    """A text on a ground of this colour, from the upper left corner (x, y) on."""
    (x, y), (width, height) = corner, tag_size(text, font)
    pen.rectangle((x, y, x + width, y + height), fill=colour)
    red, green, blue = colour
    bright = 0.299 * red + 0.587 * green + 0.114 * blue > 140
    pen.text((x + width / 2, y + height / 2), text, INK if bright else PAPER, font, anchor="mm")


AVIF = ("AVIF",) * bool("avif" in features.modules and features.check("avif"))
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", *AVIF)
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".avif")
"""Of the files in a folder that are taken as pictures."""
UNREAD = tuple(
    ".gif .heic .heif .jp2 .j2k .jpx .jxl .jfif .jpe .jxr .tga .ppm .pgm .pnm .pcx .ico .exr .hdr "
    ".psd .svg .dcm .dng .cr2 .cr3 .nef .arw .raf .orf .rw2 .raw".split()
)
"""Of pictures in formats that are not read, or whose content nobody would look for under this name."""
STRETCHED: Mapping[Any, int] = {"L;2": 85, "L;4": 17}
"""What Pillow multiplies the values of a grey PNG of 2 or 4 bits by."""
MOST_SCANS = 100
"""Of a JPEG: each is decoded over the whole picture, and encoders write about ten."""
LONGEST = 1_000_000
"""Pixels of a picture's side; shrinking a thin one of 50 million pixels would take gigabytes."""
MOST_BYTES = 100_000_000
"""No photograph from an address is larger."""

Found = TypeVar("Found")
Box = tuple[float, float, float, float]


def read_picture(path: Path | str) -> Image.Image:
    """The RGB picture of a file, or of an address that fsspec opens (`https://...`, `s3://...`), decoded.

    The pixels are those stored in the file: an EXIF orientation is not applied, except to TIFFs, because the boxes and
    masks of VOC and COCO were drawn on the stored pixels. Of 16 bits the upper eight are kept, of an animation the
    first picture, of transparent pixels their colour. Raises InputError: the file is missing, broken, cut short, of
    another format, absurdly large, or a TIFF of 32 bits.
    """
    return _read(path, lambda picture: as_rgb(_decoded(picture)))


def as_rgb(picture: Image.Image) -> Image.Image:
    """The picture in RGB; Pillow alone would make everything above 255 of a 16-bit grey one white."""
    if picture.mode.startswith("I"):
        picture = picture.convert("I").point([level >> 8 for level in range(1 << 16)], "L")
    elif picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")  # Pillow warns otherwise
    return picture.convert("RGB")


def orientation(picture: Image.Image) -> int:
    """EXIF's orientation, 1 to 8: 1 is upright, from 5 on the picture lies on its side. 1 without readable EXIF."""
    if picture.format == "TIFF":
        return 1  # Pillow turns it when it decodes it, and states the size that it then has
    try:
        said = picture.getexif().get(Base.Orientation)
    except Exception:  # broken EXIF raises all sorts of errors, and does not make a picture unusable
        return 1
    return said if isinstance(said, int) and 1 <= said <= 8 else 1


def upright(picture: Image.Image) -> Image.Image:
    """The picture turned and mirrored as its EXIF asks."""
    return picture if orientation(picture) == 1 else ImageOps.exif_transpose(picture)


def picture_size(path: Path | str) -> tuple[int, int]:
    """(height, width) of a picture from its header alone. Raises InputError as `read_picture` does."""
    return _read(path, lambda picture: (picture.height, picture.width))


def stored_orientation(path: Path | str) -> int:
    """`orientation` of a picture from its header alone. Raises InputError as `read_picture` does."""
    return _read(path, orientation)


def pictures_in(path: Path | str) -> int:
    """How many pictures a file holds, such as those of an animation. Raises InputError as `read_picture` does.

    Of a JPEG, to which phones add others for their own use, it is one.
    """
    if str(path).lower().endswith((".jpg", ".jpeg")):
        return 1
    return _read(path, lambda picture: getattr(picture, "n_frames", 1))


def read_mask(path: Path, size: tuple[int, int], labels: LabelSpace) -> Tensor:
    """A mask of class numbers: a PNG with a palette (its indices, not its colours) or of grey, up to 8 bits. Raises
    InputError: the file is unreadable, of another mode, not of `size`, or holds a value outside `labels`. Returns uint8
    [H, W], 0..C of `labels` and 255 = ignore.
    """
    mask, picture = read_numbers(path, size)
    values = np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
    wrong = [int(value) for value in values if value >= len(labels) and value != IGNORE]
    if wrong:
        raise InputError(
            f"{path}: mask values {wrong} are no classes; possible: 0 (background), 1 to {len(labels) - 1} "
            f"({labels.names[-1]}), {IGNORE} (ignore)"
        )
    _refuse_reordered(path, picture, [int(value) for value in values], labels)
    return torch.from_numpy(mask)


def read_numbers(path: Path, size: tuple[int, int]) -> tuple[NDArray[np.uint8], Image.Image]:
    """The numbers in a mask's pixels, [H, W], and its picture. Raises InputError as `read_mask`, for any number."""
    picture = open_mask(path)
    if (picture.height, picture.width) != size:
        raise InputError(
            f"{path}: the mask is {picture.width}x{picture.height} pixels, its image {size[1]}x{size[0]}; "
            "make both the same size"
        )
    mask = np.array(picture).astype(np.uint8)
    if picture.mode == "L":
        mask //= _read(path, lambda picture: STRETCHED.get(picture.tile[0][3], 1))
    return mask, picture


def open_mask(path: Path) -> Image.Image:
    """The picture of a mask, decoded. Raises InputError where it can't be read, or its pixels are no class indices."""
    picture = _read(path, _decoded)
    if picture.mode not in ("P", "L", "1"):
        raise InputError(
            f"{path}: a mask holds one class index per pixel (palette or grey PNG of 8 bits), got mode {picture.mode}; "
            "save the indices, not their colours"
        )
    return picture


def _refuse_reordered(path: Path, picture: Image.Image, values: Sequence[int], labels: LabelSpace) -> None:
    """Refuse VOC's colours in another order, as tools leave them that rewrite a palette: the indices mean nothing."""
    palette = picture.getpalette() or []
    ours = {tuple(colour): number for number, colour in enumerate(voc_palette().tolist())}
    meant = [ours.get(tuple(palette[3 * value : 3 * value + 3])) for value in values]
    moved = [(value, number) for value, number in zip(values, meant, strict=True) if value != number]
    distinct = len(set(meant)) == len(meant) and meant != [0]  # a palette may be all black
    if not moved or not distinct or not all(number in (*range(len(labels)), IGNORE) for number in meant):
        return
    value, number = moved[0]
    name = "ignore" if number == IGNORE else labels.names[number or 0]
    raise InputError(
        f"{path}: the palette is VOC's in another order: pixels of number {value} have the colour of {number} "
        f"({name}), so a tool has changed the numbers; take the original mask, write numbers again by their "
        "colours, or, if the numbers are right, save the mask without colours (grey)"
    )


def fit_box(box: Box, size: tuple[int, int], what: str, slack: float = math.inf) -> Box:
    """Cut a box (x1, y1, x2, y2) at the borders of an image of `size` (height, width). Raises InputError: it sticks out
    by more, or no area is left.

    Args:
        what: names file and object in the message.
        slack: how many pixels the box may stick out.
    """
    x1, y1, x2, y2 = box
    height, width = size
    if not max(-x1, -y1, x2 - width, y2 - height) <= slack:
        raise InputError(f"{what}: the box {box} lies outside its image of {width}x{height} pixels; correct it")
    inside = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    if is_empty(inside):
        raise InputError(f"{what}: the box {box} has no area in its image of {width}x{height} pixels; correct it")
    return inside


def refuse_shares(numbers: Sequence[float], what: str) -> None:
    """Raise InputError where a box's numbers are shares of the image's sides, as other formats have them."""
    if 0 < max(numbers) <= 1 and any(number % 1 for number in numbers):
        raise InputError(f"{what}: the box {(*numbers,)} is in shares of the image's sides; write pixels")


def is_empty(box: Box) -> bool:
    """Whether a box is thinner than float32 can tell from no area."""
    return not (box[2] - box[0] >= 0.01 and box[3] - box[1] >= 0.01)


def _decoded(picture: ImageFile) -> Image.Image:
    refuse_odd(picture)
    picture.load()
    return picture


def _read(path: Path | str, look: Callable[[ImageFile], Found]) -> Found:
    """What `look` finds in an opened file that is not yet decoded."""
    try:
        with Image.open(_source(path), formats=FORMATS) as picture:
            refuse_long(picture)
            return look(picture)
    except (FileNotFoundError, UnicodeEncodeError) as error:
        more = "; folders in a path are divided by /" if "\\" in str(path) else "" if str(path).isascii() else misread()
        raise InputError(f"{path}: there is no such picture; add it or take it off the list{more}") from error
    except ImportError as error:
        extra = str(path).partition("://")[0].replace("https", "http")
        raise InputError(f"{path}: addresses need a package ({error}); pip install 'fsspec[{extra}]'") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: too many pixels for a photograph; make it smaller ({error})") from error
    except UnidentifiedImageError as error:
        possible = ", ".join(FORMATS)
        if not AVIF and str(path).lower().endswith(".avif"):
            possible += "; AVIF needs another Pillow: pip install -U 'pillow>=11.3'"
        raise InputError(f"{path}: not a picture; possible: {possible}") from error
    except Exception as error:  # decoders raise all sorts of errors on broken bytes
        raise InputError(f"{path}: the picture can't be read ({error}); fetch it again") from error


def refuse_long(picture: Image.Image) -> None:
    """Raise Image.DecompressionBombError where a picture that is not yet decoded has a side of absurd length."""
    if max(picture.size) > LONGEST:
        raise Image.DecompressionBombError(f"a side of {max(picture.size):,} pixels, more than {LONGEST:,}")


def refuse_odd(picture: Image.Image) -> None:
    """Raise ValueError where a picture, not yet decoded, is a TIFF of 32 bits or a JPEG of impossibly many scans."""
    if picture.format == "TIFF" and picture.mode in ("I", "F"):
        raise ValueError("32 bits a pixel are measurements, whose white is unknown; save it with 8 or 16 bits")
    if isinstance(picture, JpegImageFile):
        assert picture.fp is not None
        place = picture.fp.tell()
        picture.fp.seek(0)
        scans = picture.fp.read().count(b"\xff\xda")  # within a scan, 255 is always followed by another byte
        picture.fp.seek(place)
        if scans > MOST_SCANS:
            raise ValueError(f"{scans} scans, more than {MOST_SCANS}")


def _source(path: Path | str) -> Path | IO[bytes]:
    local = re.sub("^(file|local)://", "", str(path))
    if "://" not in local:
        return regular(Path(local))
    import fsspec

    with fsspec.open(str(path), "rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES // 1_000_000} MB")
    return io.BytesIO(content)
