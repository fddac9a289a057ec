"""How an image file is read: rotated as its EXIF says, and never with truncated pixel values."""

import struct
import zlib

import numpy as np
import pytest
import torch
from conftest import annotate, make_folder, make_market, make_voc
from PIL import Image, ImageOps
from torchvision.transforms.v2.functional import pil_to_tensor

from hbo.config import resolve
from hbo.data.preprocess import Preprocess
from hbo.data.sources import read_image, size_of
from hbo.errors import DataError, UserError
from hbo.tasks.build import open_data

SHADES = np.random.RandomState(0).randint(0, 256, (24, 40, 3), dtype=np.uint8)
RAMP = np.tile(np.linspace(0, 65535, 48).astype(np.uint16), (40, 1))


def turned(path, orientation, **how):
    """Noise of 40 x 24 with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(SHADES).save(path, exif=exif, **how)
    return path


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("name", "how"), [
    ("a.jpg", {}), ("a.png", {}), ("a.webp", {"lossless": True}), ("a.tif", {}),
    ("b.tif", {"compression": "tiff_lzw"}),
])  # fmt: skip
def test_a_photograph_is_rotated_by_its_exif(tmp_path, orientation, name, how):
    path = turned(tmp_path / name, orientation, **how)
    with Image.open(path) as image:
        expected = ImageOps.exif_transpose(image).convert("RGB")
    found = read_image(path)
    assert found.size == size_of(path) == ((24, 40) if orientation > 4 else (40, 24))
    assert np.array_equal(np.asarray(found), np.asarray(expected))
    assert np.array_equal(np.asarray(read_image(path, "L")), np.asarray(expected.convert("L")))


def test_a_pngs_exif_may_follow_its_pixels(tmp_path):
    path = turned(tmp_path / "a.png", 6)
    whole = path.read_bytes()
    at = whole.index(b"eXIf") - 4
    end = at + 12 + int.from_bytes(whole[at : at + 4], "big")
    path.write_bytes(whole[:at] + whole[end:-12] + whole[at:end] + whole[-12:])
    assert read_image(path).size == size_of(path) == (24, 40)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # as sources.py does
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0not exif", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01", b"Exif\0\0"]
)
def test_a_broken_exif_leaves_a_photograph_unrotated(tmp_path, exif):
    Image.fromarray(SHADES).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").size == size_of(tmp_path / "a.jpg") == (40, 24)


def test_an_invalid_orientation_rotates_nothing(tmp_path):
    path = turned(tmp_path / "a.jpg", 9)
    assert read_image(path).size == size_of(path) == (40, 24)


def deep(folder):
    """Files with more than 8 bits per channel, by their mode."""
    Image.fromarray(RAMP).save(folder / "grey16.png")
    Image.fromarray(RAMP).save(folder / "grey16.tif")
    Image.fromarray(RAMP.astype(np.int32)).save(folder / "whole.tif")
    Image.fromarray(RAMP.astype(np.float32)).save(folder / "float.tif")
    (folder / "grey16.pgm").write_bytes(b"P5 48 40 65535\n" + RAMP.astype(">u2").tobytes())
    (folder / "grey12.pgm").write_bytes(b"P5 48 40 4095\n" + (RAMP // 16).astype(">u2").tobytes())
    Image.new("LAB", (48, 40)).save(folder / "lab.tif")
    return {"grey16.png": "I;16", "grey16.tif": "I;16", "whole.tif": "I", "float.tif": "F", "grey16.pgm": "I",
            "grey12.pgm": "I", "lab.tif": "LAB"}  # fmt: skip


def test_pixels_that_would_be_clipped_are_an_error_naming_the_file(tmp_path):
    for name, mode in deep(tmp_path).items():
        for look in (read_image, size_of):
            with pytest.raises(DataError) as error:
                look(tmp_path / name)
            assert name in str(error.value)
            assert f"mode {mode}" in str(error.value)


def test_16_bits_per_colour_are_scaled(tmp_path):
    rows = b"".join(b"\0" + np.repeat(line[:, None], 3, 1).astype(">u2").tobytes() for line in RAMP)
    head = struct.pack(">IIBBBBB", 48, 40, 16, 2, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.png"))[..., 0], RAMP >> 8)


@pytest.mark.parametrize(("mode", "suffix"), [
    ("1", "png"), ("L", "png"), ("LA", "png"), ("P", "png"), ("RGBA", "png"), ("RGBA", "tif"),
    ("CMYK", "jpg"), ("YCbCr", "tif"), ("PA", "tif"),
])  # fmt: skip
def test_8_bits_of_any_kind_are_read(tmp_path, mode, suffix):
    path = tmp_path / f"a.{suffix}"
    how = {"transparency": bytes(range(256))} if mode == "P" else {}
    Image.fromarray(SHADES).convert("L" if mode == "PA" else "RGB").convert(mode).save(path, **how)
    assert read_image(path).mode == "RGB"
    assert size_of(path) == (40, 24)


@pytest.mark.parametrize("suffix", ["tif", "webp", "png"])
def test_several_images_in_a_file_are_an_error(tmp_path, suffix):
    first, *more = (Image.fromarray(SHADES + i) for i in range(3))
    first.save(tmp_path / f"a.{suffix}", save_all=True, append_images=more)
    for look in (read_image, size_of):
        with pytest.raises(DataError, match="contains 3 images"):
            look(tmp_path / f"a.{suffix}")


def test_no_task_starts_on_pixels_that_would_be_clipped(tmp_path):
    folder = make_folder(tmp_path / "folder", {"x": 2, "y": 2}, {"x": 1, "y": 1})
    voc, market = make_voc(tmp_path / "voc"), make_market(tmp_path / "market")
    sets = {
        "imagefolder": (folder, folder / "val" / "x" / "0.png"),
        "vocfolder": (voc, voc / "JPEGImages" / "000009.jpg"),
        "marketfolder": (market, next((market / "query").iterdir())),
    }
    for data, (root, path) in sets.items():
        Image.fromarray(RAMP).save(path, format="PNG")
        with pytest.raises(DataError, match="mode I;16"):
            open_data(resolve(data=data, data_dir=str(root), batch=2))


def test_boxes_belong_to_the_rotated_photograph(tmp_path):
    """A red rectangle in a photograph stored on its side, annotated as viewers show it."""
    root = make_voc(tmp_path / "voc", size=(96, 80))
    upright = np.full((96, 80, 3), 120, np.uint8)
    upright[60:90, 10:30] = (220, 30, 30)
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = Image.fromarray(upright).transpose(Image.Transpose.ROTATE_90)
    lying.save(root / "JPEGImages" / "000008.jpg", exif=exif, quality=95)
    annotate(root / "Annotations" / "000008.xml", [("a", 11, 61, 30, 90)], (80, 96))
    data = open_data(resolve(data="vocfolder", data_dir=str(root), batch=2, resolution=64))
    image, target, _ = data.val[0, 0]
    (box,) = target["boxes"].tolist()
    assert box == pytest.approx([10 * 64 / 80, 60 * 64 / 96, 30 * 64 / 80, 90 * 64 / 96])
    x1, y1, x2, y2 = (round(corner) for corner in box)
    inside = image[:, y1 + 2 : y2 - 2, x1 + 2 : x2 - 2].float().mean((1, 2))
    assert inside[0] > 190
    assert inside[1] < 60
    assert data.facts["clipped_boxes"] == 0


def test_a_cache_holds_rotated_photographs(tmp_path):
    root = make_folder(tmp_path / "folder", {"x": 2, "y": 2}, {"x": 1, "y": 1})
    for path in root.rglob("*.png"):
        turned(path, 8)
    given = {"data": "imagefolder", "data_dir": str(root), "batch": 2, "resolution": 32}
    plain, cached = (
        open_data(resolve(cache=kind, cache_dir=str(tmp_path / "caches"), **given))
        for kind in ("none", "disk")
    )
    assert cached.train.pixels.sizes()[0][0] == (40, 24)
    assert torch.equal(plain.val[0, 1][0], cached.val[0, 1][0])


BROKEN = (
    b"Exif\0\0not exif",
    b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01",
    b"Exif\0\0II*\0\x08\0\0\0\x05\0",
)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # as headers.py does
@pytest.mark.parametrize("data", ["imagefolder", "vocfolder", "marketfolder"])
def test_rotated_photographs_are_counted_and_broken_exif_named(tmp_path, capsys, data):
    make = {
        "imagefolder": lambda root: make_folder(root, {"x": 4, "y": 4}, {"x": 2, "y": 2}),
        "vocfolder": make_voc,
    }
    root = make.get(data, make_market)(tmp_path / "set")
    paths = sorted(path for path in root.rglob("*.*") if path.suffix in (".jpg", ".png"))
    plain = open_data(resolve(data=data, data_dir=str(root), batch=2))
    assert (plain.facts["turned_images"], plain.facts["broken_exif"]) == (0, 0)
    assert "EXIF" not in capsys.readouterr().err
    for path, exif in zip(paths[1:4], BROKEN, strict=True):
        with Image.open(path) as image:
            image.load()
            image.convert("RGB").save(path, format="JPEG", exif=exif)
    upside_down = Image.Exif()
    upside_down[0x0112] = 3
    with Image.open(paths[0]) as image:
        image.load()
        image.convert("RGB").save(path := paths[0], format="JPEG", exif=upside_down)
    found = open_data(resolve(data=data, data_dir=str(root), batch=2))
    assert (found.facts["turned_images"], found.facts["broken_exif"]) == (1, 3)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "EXIF" in line]
    assert line.startswith("warning: 3 images have EXIF that cannot be read, and are used unrotated: ")
    assert all(str(path) in line for path in paths[1:4])


@pytest.mark.parametrize("how", [2, 3, 6, 8])
@pytest.mark.parametrize("given", [lambda path: path, Image.open, lambda path: Image.open(path).convert("RGB"), read_image])  # fmt: skip
def test_a_photograph_in_memory_is_prepared_like_its_file(tmp_path, how, given):
    """Rotated by its EXIF exactly once, whoever opened it."""
    path = turned(tmp_path / "a.jpg", how)
    assert torch.equal(Preprocess(lambda image: image).pixels(given(path)), pil_to_tensor(read_image(path)))


def test_more_than_8_bits_in_memory_are_an_error():
    """PIL would make them white."""
    with pytest.raises(UserError, match="image: has mode I;16; convert"):
        Preprocess(lambda image: image)(Image.fromarray(RAMP))


def test_a_tiff_with_a_broken_second_page_is_named(tmp_path):
    """PIL raises a TypeError for it."""
    path = tmp_path / "a.tif"
    Image.fromarray(SHADES).save(path)
    whole = bytearray(path.read_bytes())
    at = int.from_bytes(whole[4:8], "little")
    after = at + 2 + 12 * int.from_bytes(whole[at : at + 2], "little")
    whole[after : after + 4] = len(whole).to_bytes(4, "little")
    path.write_bytes(whole + bytes(8))
    for look in (read_image, size_of):
        with pytest.raises(DataError, match=r"a\.tif: not a readable image \(Missing dimensions\)"):
            look(path)
