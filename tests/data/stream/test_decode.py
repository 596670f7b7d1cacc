"""JPEG and PNG to RGB: modes, boxes, reduced scales and broken files."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from spa_jax.data.stream.decode import Box, decode_crop
from spa_jax.errors import InputError
from tests.data.tiny_jpeg import smooth_image
from tests.refusals import refusal


def encode(image, form="JPEG", **options):
    """The bytes of a file; an array is encoded as it is."""
    file = io.BytesIO()
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(file, form, **({"quality": 95} if form == "JPEG" else {}), **options)
    return file.getvalue()


def full_decode(data):
    """What Pillow gives without any of our choices."""
    return Image.open(io.BytesIO(data)).convert("RGB")


def whole(height, width):
    return Box(0, 0, height, width)


def decode_rgb(data, name, choose_box=whole, size=32):
    """The whole image as an array, unless another box is asked for."""
    return np.asarray(decode_crop(data, name, choose_box, size))


PIXELS = smooth_image(0, 32, 32)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_whole_image_comes_as_pillow_decodes_it(form):
    data = encode(PIXELS, form)
    found = decode_rgb(data, "a")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.asarray(full_decode(data)), strict=True)


def test_grey_files_get_three_equal_channels():
    grey = PIXELS[..., 1]
    found = decode_rgb(encode(grey, "PNG"), "a")
    np.testing.assert_array_equal(found, np.stack([grey] * 3, axis=-1))
    assert decode_rgb(encode(grey), "a", size=10).shape == (10, 10, 3)


def test_files_of_16_bits_keep_the_upper_8():
    deep = PIXELS[..., 0].astype(np.uint16) * 256 + 200
    found = decode_rgb(encode(deep, "PNG"), "a")
    np.testing.assert_array_equal(found, np.stack([PIXELS[..., 0]] * 3, axis=-1))


def test_bits_become_black_and_white():
    bits = PIXELS[..., 0] > 100
    found = decode_rgb(encode(bits, "PNG"), "a")
    np.testing.assert_array_equal(found, np.where(bits, 255, 0)[..., None].repeat(3, -1))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_dropped(mode):
    opaque = PIXELS if mode == "RGBA" else PIXELS[..., :1]
    alpha = np.random.default_rng(0).integers(0, 256, (32, 32, 1), dtype=np.uint8)
    data = encode(np.concatenate([opaque, alpha], axis=-1), "PNG")
    np.testing.assert_array_equal(decode_rgb(data, "a"), np.broadcast_to(opaque, (32, 32, 3)))


@pytest.mark.parametrize("options", [{}, {"transparency": bytes([0, 9, 255])}, {"transparency": 1}])
def test_palettes_are_looked_up_and_their_transparency_is_dropped(options):
    colours = np.array([[255, 0, 0], [10, 200, 30], [1, 2, 3]], np.uint8)
    indices = (np.add.outer(np.arange(32), np.arange(32)) % 3).astype(np.uint8)
    image = Image.fromarray(indices).convert("P")
    image.putdata(indices.ravel().tolist())
    image.putpalette(colours.tobytes())
    np.testing.assert_array_equal(
        decode_rgb(encode(image, "PNG", **options), "a"), colours[indices]
    )


def test_cmyk_is_what_the_inks_leave():
    inks = Image.frombytes("CMYK", (16, 16), bytes([40, 80, 120, 60]) * 256)
    found = decode_rgb(encode(inks), "a", size=16)
    expected = [(255 - ink) * (255 - 60) / 255 for ink in (40, 80, 120)]
    np.testing.assert_allclose(found[8, 8], expected, atol=3)


def test_the_orientation_in_the_exif_data_is_not_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    np.testing.assert_array_equal(
        decode_rgb(encode(PIXELS, exif=exif), "a"), decode_rgb(encode(PIXELS), "a")
    )


def test_the_box_is_chosen_from_height_and_width_in_this_order():
    asked = []

    def choose(height, width):
        asked.append((height, width))
        return Box(3, 5, 11, 11)

    found = decode_rgb(encode(PIXELS[:24], "PNG"), "a", choose, 11)
    assert asked == [(24, 32)]
    np.testing.assert_array_equal(found, PIXELS[3:14, 5:16])


def test_an_error_of_the_chooser_is_not_blamed_on_the_file():
    def choose(height, width):
        raise ValueError("no box")

    with pytest.raises(ValueError) as caught:
        decode_rgb(encode(PIXELS), "a", choose)
    assert type(caught.value) is ValueError
    assert str(caught.value) == "no box"


@pytest.fixture
def decoded_sizes(monkeypatch):
    """Height and width of every JPEG at the scale at which it was decoded."""
    sizes = []
    load = JpegImageFile.load

    def watched(image):
        sizes.append(image.size[::-1])
        return load(image)

    monkeypatch.setattr(JpegImageFile, "load", watched)
    return sizes


@pytest.mark.parametrize(
    ("box", "size", "reduction"),
    [
        (Box(0, 0, 300, 400), 301, 1),  # enlarged
        (Box(0, 0, 300, 400), 150, 2),
        (Box(0, 0, 300, 400), 151, 1),
        (Box(0, 0, 299.9, 400), 150, 1),
        (Box(10, 20, 200, 290), 50, 4),
        (Box(10, 20, 200, 290), 51, 2),
        (Box(10, 20, 290, 200), 51, 2),
        (Box(10, 20, 290, 200), 25, 8),
        (Box(0, 0, 300, 400), 5, 8),  # the least that JPEG has
    ],
)
def test_the_scale_is_the_smallest_at_which_the_box_has_the_output_s_size(
    decoded_sizes, box, size, reduction
):
    data = encode(smooth_image(1, 301, 405))
    decode_rgb(data, "a", lambda height, width: box, size)
    assert set(decoded_sizes) == {(-(-301 // reduction), -(-405 // reduction))}


@st.composite
def boxes(draw):
    """(height, width, box, size) of an image, a box within it and an output."""
    height, width = draw(st.integers(120, 300)), draw(st.integers(120, 300))
    box_height, box_width = draw(st.floats(40, height)), draw(st.floats(40, width))
    top, left = draw(st.floats(0, height - box_height)), draw(st.floats(0, width - box_width))
    return height, width, Box(top, left, box_height, box_width), draw(st.integers(8, 40))


@given(boxes())
@settings(max_examples=40, deadline=None)
def test_a_reduced_decode_is_close_to_the_full_one_and_boxes_stay_where_they_were(case):
    height, width, box, size = case
    data = encode(smooth_image(height, height, width))
    found = decode_rgb(data, "a", lambda h, w: box, size).astype(float)
    top, left, box_height, box_width = box
    corners = (left, top, min(left + box_width, width), min(top + box_height, height))
    reference = full_decode(data).resize((size, size), Image.Resampling.BILINEAR, corners)
    difference = np.abs(found - np.asarray(reference))
    assert found.shape == (size, size, 3)
    assert difference.mean() < 2.5, difference.mean()


def test_a_reduced_decode_of_a_photo_like_image_differs_by_a_level_or_two():
    data = encode(smooth_image(3, 600, 800))
    box = Box(37, 91, 470, 510)
    found = decode_crop(data, "a", lambda h, w: box, 96)
    reference = full_decode(data).resize((96, 96), Image.Resampling.BILINEAR, (91, 37, 601, 507))
    difference = np.abs(np.asarray(found, float) - np.asarray(reference, float))
    assert difference.mean() < 0.7
    assert difference.max() <= 4


def test_a_large_png_is_close_to_its_plain_resizing():
    pixels = smooth_image(4, 500, 700)
    found = decode_rgb(encode(pixels, "PNG"), "a", size=32)
    reference = Image.fromarray(pixels).resize((32, 32), Image.Resampling.BILINEAR)
    assert np.abs(found.astype(float) - np.asarray(reference, float)).mean() < 0.7


WHOLE = {"JPEG": encode(PIXELS), "PNG": encode(PIXELS, "PNG")}
BROKEN = {
    "nothing": b"",
    "a web page": b"<html>429 Too Many Requests</html>",
    "another format": encode(PIXELS, "GIF"),
    "half a JPEG": WHOLE["JPEG"][: len(WHOLE["JPEG"]) // 2],
    "a JPEG's header": WHOLE["JPEG"][:30],
    "half a PNG": WHOLE["PNG"][: len(WHOLE["PNG"]) // 2],
    "a PNG's header": WHOLE["PNG"][:20],
    "a PNG with a wrong checksum": WHOLE["PNG"][:29] + b"\0\0\0\0" + WHOLE["PNG"][33:],
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_named_with_what_to_do(case):
    message = refusal(decode_rgb, BROKEN[case], "n01/n01_7.JPEG")
    assert message.startswith("n01/n01_7.JPEG ")
    assert "fetch it again" in message
    assert "take it out" in message
    assert "0x" not in message  # an address in memory tells nobody anything


def test_an_image_beyond_pillow_s_limit_is_named(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert "vast.jpg cannot be decoded" in refusal(decode_rgb, WHOLE["JPEG"], "vast.jpg")


@given(st.sampled_from(list(WHOLE)), st.data())
@settings(max_examples=150, deadline=None)
def test_whatever_the_bytes_there_is_an_image_or_an_input_error(form, data):
    content = bytearray(WHOLE[form])
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, min(len(content), 400) - 1))
        content[position] = data.draw(st.integers(0, 255))
    try:
        assert decode_rgb(bytes(content), "mangled", size=8).shape == (8, 8, 3)
    except InputError as error:
        assert str(error).startswith("mangled ")
