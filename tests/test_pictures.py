"""Pictures and masks: what is read, and how each broken file is refused by name."""

import struct
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from made import refused, turned
from tutored.data import open_dataset
from tutored.data.check import check
from tutored.errors import InputError
from tutored.inputs import find_pictures
from tutored.labels import VOC
from tutored.pictures import (
    FORMATS,
    SUFFIXES,
    fit_box,
    orientation,
    picture_size,
    read_mask,
    read_picture,
    stored_orientation,
    upright,
    voc_palette,
)


def test_palette_and_grey_masks_give_their_indices(tmp_path):
    indices = np.zeros((8, 10), np.uint8)
    indices[2:4, 5:9], indices[0] = 20, 255
    grey = Image.fromarray(indices)
    palette = grey.copy()
    palette.putpalette([7, 0, 99] * 256)
    for picture, mode in ((grey, "L"), (palette, "P")):
        assert picture.mode == mode
        picture.save(tmp_path / "mask.png")
        assert read_mask(tmp_path / "mask.png", (8, 10), VOC).tolist() == indices.tolist()


def crc(chunk):
    return struct.pack(">I", zlib.crc32(chunk))


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (Image.new("RGB", (10, 8)), "got mode RGB"),
        (Image.new("L", (8, 10)), "the mask is 8x10 pixels, its image 10x8"),
        (Image.new("L", (10, 8), 21), r"mask values \[21\] are no classes; possible: 0 \(background\), 1 to 20"),
    ],
)
def test_a_wrong_mask_is_refused(tmp_path, picture, message):
    picture.save(tmp_path / "mask.png")
    refused(rf"mask\.png: .*{message}", read_mask, tmp_path / "mask.png", (8, 10), VOC)


VOC_COLOURS = voc_palette().tolist()


@pytest.mark.tried("refused by name", "masks with VOC's palette in another order, or another palette", inputs=3)
@pytest.mark.tried("read as meant", "masks with VOC's palette in another order, or another palette", inputs=3)
@pytest.mark.parametrize(
    ("order", "values", "told"),
    [
        ([0, 255, 15], [0, 1, 2], r"number 1 have the colour of 255 \(ignore\)"),
        ([0, 2], [0, 1], r"number 1 have the colour of 2 \(bicycle\)"),
        ([8], [0], r"number 0 have the colour of 8 \(cat\)"),
        (list(range(256)), [0, 15, 255], None),
        ([0, 0, 0], [0, 1], None),  # all black: it says nothing
        ([0, 40, 2], [0, 1, 2], None),  # not all are colours of VOC's classes
    ],
)
def test_a_palette_of_voc_in_another_order_is_refused(tmp_path, order, values, told):
    indices = np.resize(np.array(values, np.uint8), (8, 10))
    picture = Image.fromarray(indices)
    picture.putpalette([channel for number in order for channel in VOC_COLOURS[number]])
    picture.save(tmp_path / "mask.png")
    if told is None:
        assert read_mask(tmp_path / "mask.png", (8, 10), VOC).tolist() == indices.tolist()
    else:
        with pytest.raises(InputError, match=rf"mask\.png: the palette is VOC's in another order: pixels of {told}"):
            read_mask(tmp_path / "mask.png", (8, 10), VOC)


def test_a_jpeg_of_very_many_scans_is_refused(tmp_path):
    path = tmp_path / "a.jpg"
    Image.effect_noise((64, 64), 50).save(path, progressive=True)
    whole = path.read_bytes()
    last = whole[whole.rindex(b"\xff\xda") : -2]
    for scans, message in ((100, None), (101, r"a\.jpg: .*101 scans, more than 100")):
        path.write_bytes(whole[:-2] + last * (scans - whole.count(b"\xff\xda")) + whole[-2:])
        if message is None:
            assert read_picture(path).size == (64, 64)
        else:
            refused(message, read_picture, path)


@pytest.mark.parametrize("suffix", [each for each in SUFFIXES if each != ".avif" or "AVIF" in FORMATS])
def test_every_format_is_read_by_its_suffix(tmp_path, suffix):
    Image.new("RGB", (10, 8), (200, 100, 50)).save(tmp_path / f"p{suffix}")
    assert picture_size(tmp_path / f"p{suffix}") == (8, 10)
    assert np.abs(np.asarray(read_picture(tmp_path / f"p{suffix}")).astype(int) - [200, 100, 50]).max() <= 3
    (tmp_path / "train").mkdir()
    (tmp_path / f"p{suffix}").rename(tmp_path / f"train/p{suffix.upper()}")
    assert open_dataset(f"images:{tmp_path}", "train").ids == ("p",)
    assert list(find_pictures([tmp_path / "train"])) == [f"p{suffix.upper()}"]


@pytest.mark.parametrize(
    ("mode", "given", "rgb"),
    [
        ("1", 1, (255, 255, 255)),
        ("LA", (90, 0), (90, 90, 90)),
        ("RGBA", (10, 20, 30, 0), (10, 20, 30)),
        ("CMYK", (255, 0, 0, 0), (0, 255, 255)),
        ("I;16", 40000, (156, 156, 156)),
    ],
)
def test_tiff_of_every_mode_becomes_rgb(tmp_path, mode, given, rgb):
    Image.new(mode, (4, 4), given).save(tmp_path / "p.tif")
    assert read_picture(tmp_path / "p.tif").getpixel((0, 0)) == rgb


@pytest.mark.tried("refused by name", "TIFFs of 32 bits, whose white nobody knows")
@pytest.mark.parametrize("mode", ["I", "F"])
def test_tiff_of_32_bits_is_refused(tmp_path, mode):
    Image.new(mode, (4, 4), 1).save(tmp_path / "p.tif")
    with pytest.raises(InputError, match=r"p\.tif: .*32 bits a pixel are measurements, .* save it with 8 or 16 bits"):
        read_picture(tmp_path / "p.tif")


@pytest.mark.tried("noted", "animations, and TIFFs of several pages")
@pytest.mark.parametrize("suffix", [".webp", ".png", ".tif"])
def test_of_an_animation_the_first_picture_is_taken(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), (200 * number, 0, 0)) for number in (1, 0)]
    (tmp_path / "train").mkdir()
    frames[0].save(tmp_path / f"train/p{suffix}", save_all=True, append_images=frames[1:])
    assert read_picture(tmp_path / f"train/p{suffix}").getpixel((0, 0))[0] > 190
    report = check({"train": open_dataset(f"images:{tmp_path}", "train")})
    assert report.splits["train"].notes[0].startswith("1 files, such as that of p, hold several pictures (an animation")
    told = []
    find_pictures([tmp_path / "train"], tell=told.append)
    assert told == [f"{tmp_path}/train/p{suffix}: holds several pictures, of which the first is taken"]


def test_a_picture_cut_short_is_refused_but_has_a_size(tmp_path):
    path = tmp_path / "short.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    refused(r"short\.jpg: the picture can't be read \(.*truncated", read_picture, path)
    assert picture_size(path) == (48, 64)


def test_missing_files_folders_and_bombs_are_refused(tmp_path, monkeypatch):
    refused(r"x\.jpg: there is no such picture", read_picture, tmp_path / "x.jpg")
    refused("can't be read", read_picture, tmp_path)
    Image.new("RGB", (10, 8)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    refused(r"bomb\.png: too many pixels", picture_size, tmp_path / "bomb.png")


def test_a_very_thin_picture_is_refused_before_it_is_decoded(tmp_path):
    header = b"IHDR" + struct.pack(">IIBBBBB", 1, 50_000_000, 1, 0, 0, 0, 0)
    chunks = (header, b"IDAT" + zlib.compress(b""), b"IEND")
    parts = (struct.pack(">I", len(each) - 4) + each + crc(each) for each in chunks)
    (tmp_path / "thin.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    for read in (picture_size, read_picture):
        refused(r"thin\.png: .*a side of 50,000,000 pixels, more than 1,000,000", read, tmp_path / "thin.png")


def test_boxes_are_cut_at_the_borders_within_the_slack():
    assert fit_box((-1, 2, 11, 9), (8, 10), "x", slack=1) == (0, 2, 10, 8)
    assert fit_box((-50, 2, 5, 4), (8, 10), "x") == (0, 2, 5, 4)
    for box, slack in (((-1.5, 2, 5, 4), 1.0), ((float("nan"), 2, 5, 4), 1.0)):
        refused(r"^x: the box .* lies outside its image of 10x8 pixels", fit_box, box, (8, 10), "x", slack)
    for box in ((5, 2, 5, 4), (10, 2, 12, 4), (5, 4, 6, 2)):
        refused(r"^x: the box .* has no area in its image of 10x8 pixels", fit_box, box, (8, 10), "x")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_masks_of_few_bits_give_their_indices(tmp_path, bits):
    """Eight columns, of which the second and the last are class 1; Pillow writes no such file."""
    row = sum(1 << bits * place for place in (6, 0)).to_bytes(bits)
    chunks = {b"IHDR": struct.pack(">IIBBBBB", 8, 3, bits, 0, 0, 0, 0), b"IDAT": zlib.compress(3 * (b"\0" + row))}
    parts = (
        struct.pack(">I", len(body)) + name + body + crc(name + body) for name, body in {**chunks, b"IEND": b""}.items()
    )
    (tmp_path / "mask.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    assert read_mask(tmp_path / "mask.png", (3, 8), VOC).tolist() == [[0, 1, 0, 0, 0, 0, 0, 1]] * 3


def test_an_orientation_tag_turns_nothing(tmp_path):
    exif = turned(6)
    Image.new("RGB", (10, 8)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_picture(tmp_path / "turned.jpg").size == (10, 8)
    assert picture_size(tmp_path / "turned.jpg") == (8, 10)


@pytest.mark.parametrize(("address", "package", "extra"), [("https", "aiohttp", "http"), ("s3", "s3fs", "s3")])
def test_an_address_names_the_package_it_needs(address, package, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "fsspec.implementations.http", raising=False)
    with pytest.raises(InputError, match=rf"^{address}://a/b.jpg: addresses need a package \(.*{package}.*\[{extra}\]"):
        read_picture(f"{address}://a/b.jpg")


def test_pictures_are_turned_upright_where_asked(tmp_path):
    for number in range(1, 9):
        exif = turned(number)
        Image.new("RGB", (10, 8)).save(tmp_path / "turned.jpg", exif=exif)
        picture = read_picture(tmp_path / "turned.jpg")
        assert orientation(picture) == number
        assert upright(picture).size == ((10, 8) if number < 5 else (8, 10))
    for broken in (b"Exif\x00\x00no header of TIFF", b"Exif\x00\x00"):
        Image.new("RGB", (10, 8)).save(tmp_path / "broken.jpg", exif=broken)
        picture = read_picture(tmp_path / "broken.jpg")
        assert orientation(picture) == 1 and upright(picture) is picture


def test_every_kind_of_picture_becomes_rgb(tmp_path):
    for mode in ("L", "RGB", "CMYK"):
        Image.new(mode, (10, 8)).save(tmp_path / "picture.jpg")
        picture = read_picture(tmp_path / "picture.jpg")
        assert (picture.mode, picture.size) == ("RGB", (10, 8))


def test_a_tiff_is_turned_wherever_it_is_looked_at(tmp_path):
    exif = turned(6)
    Image.new("RGB", (10, 8)).save(tmp_path / "p.tif", exif=exif)
    picture = read_picture(tmp_path / "p.tif")
    assert picture.size == upright(picture).size == (8, 10) and picture_size(tmp_path / "p.tif") == (10, 8)
    assert orientation(picture) == stored_orientation(tmp_path / "p.tif") == 1


def test_avif_without_a_decoder_names_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr("tutored.pictures.AVIF", ())
    (tmp_path / "p.avif").write_bytes(b"no picture")
    refused(r"p\.avif: .*AVIF needs another Pillow: pip install -U 'pillow>=11\.3'", read_picture, tmp_path / "p.avif")


@pytest.mark.filterwarnings("error")
def test_transparent_pixels_of_a_palette_keep_their_colour(tmp_path):
    picture = Image.new("P", (4, 4))
    picture.putpalette([1, 2, 3] * 256)
    picture.save(tmp_path / "p.png", transparency=bytes(256))
    assert read_picture(tmp_path / "p.png").getpixel((0, 0)) == (1, 2, 3)


def test_a_grey_picture_of_16_bits_keeps_its_upper_eight(tmp_path):
    Image.fromarray(np.array([[0, 255, 256, 40000, 65535]], np.uint16)).save(tmp_path / "deep.png")
    assert np.asarray(read_picture(tmp_path / "deep.png"))[0].tolist() == [[level] * 3 for level in (0, 0, 1, 156, 255)]


def test_a_grey_picture_of_16_bits_is_turned_upright_too(tmp_path):
    exif = turned(6)  # turn by 90 degrees clockwise
    Image.fromarray(np.array([[0, 65535]], np.uint16)).save(tmp_path / "deep.png", exif=exif)
    assert np.asarray(upright(read_picture(tmp_path / "deep.png")))[:, :, 0].tolist() == [[0], [255]]


@pytest.mark.parametrize("content", [b"", b"no picture", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_what_is_no_picture_is_refused(tmp_path, content):
    (tmp_path / "x.jpg").write_bytes(content)
    refused(r"x\.jpg: not a picture; possible: JPEG, PNG", read_picture, tmp_path / "x.jpg")


@given(st.integers(0, 300), st.binary(min_size=1, max_size=20), st.sampled_from(["jpg", "png", "tif", "webp"]))
def test_damaged_pictures_are_read_or_refused(tmp_path_factory, place, damage, suffix):
    path = tmp_path_factory.getbasetemp() / f"damaged.{suffix}"
    Image.new("RGB", (10, 8), (9, 99, 200)).save(path)
    content = bytearray(path.read_bytes())
    content[place : place + len(damage)] = damage
    path.write_bytes(content)
    try:
        picture = read_picture(path)
    except InputError:
        return
    assert picture.mode == "RGB"
