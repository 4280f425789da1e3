"""Augmentation of people: each kernel against a loop over images, and nothing but the generator decides."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from cdimlib.data.augment import PersonInput, crop_resize, erase, flip, normalise, pad_crop
from cdimlib.data.samplers import generator_for

COUNT, HEIGHT, WIDTH = 24, 12, 7
EVERY = {
    "flip": flip, "pad_crop": lambda x, g: pad_crop(x, g, 3), "erase": erase,
    "crop_resize": lambda x, g: crop_resize(x, g, (HEIGHT, WIDTH)), "training": PersonInput((HEIGHT, WIDTH), pad=2,
                                                                                            erase=0.5).training,
}  # fmt: skip


@pytest.fixture
def images():
    """uint8 [24, 3, 12, 7], every value above 0."""
    return torch.randint(1, 256, (COUNT, 3, HEIGHT, WIDTH), dtype=torch.uint8, generator=generator_for(0, 0))


def test_flip_mirrors_whole_images_with_its_probability(images):
    out = flip(images, generator_for(1, 0))
    mirrored = [not torch.equal(a, b) for a, b in zip(out, images)]
    assert 0 < sum(mirrored) < COUNT
    for new, old, changed in zip(out, images, mirrored):
        assert torch.equal(new, old.flip(-1) if changed else old)
    assert torch.equal(flip(images, generator_for(1, 0), 1.0), images.flip(-1))
    assert torch.equal(flip(images, generator_for(1, 0), 0.0), images)
    many = flip(images[:1].expand(4000, -1, -1, -1), generator_for(2, 0), 0.3)
    assert (many != images[:1]).any(dim=3).any(dim=2).any(dim=1).float().mean() == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize("fill", [0, 77])
def test_pad_crop_is_a_window_of_the_padded_image(images, fill):
    """The shift is found by trying all of them."""
    out, pad, shifts = pad_crop(images, generator_for(1, 0), 2, fill), 2, []
    for new, old in zip(out, images):
        padded = F.pad(old, (pad,) * 4, value=fill)
        found = [(y, x) for y in range(5) for x in range(5)
                 if torch.equal(new, padded[:, y : y + HEIGHT, x : x + WIDTH])]  # fmt: skip
        assert len(found) == 1
        shifts += found
    assert {y for y, _ in shifts} == {x for _, x in shifts} == set(range(5)), "every shift must come up"
    assert torch.equal(pad_crop(images, generator_for(1, 0), 0), images)


class TestCropResize:
    def test_the_whole_image_is_the_identity_or_a_resize(self, images):
        assert torch.equal(crop_resize(images, generator_for(0, 0), (HEIGHT, WIDTH), (1.0, 1.0)), images)
        larger = crop_resize(images, generator_for(0, 0), (30, 20), (1.0, 1.0), mode="bilinear")
        expected = F.interpolate(images.float(), (30, 20), mode="bilinear", align_corners=False)
        assert (larger.float() - expected).abs().max() <= 0.5001

    def test_windows_keep_their_share_and_lie_inside(self):
        """On a picture whose values are its coordinates, the window can be read off."""
        size = 200
        ramp = torch.arange(size, dtype=torch.uint8).expand(size, size)
        picture = torch.stack([ramp, ramp.T, ramp]).expand(300, -1, -1, -1)  # channel 0 is x, channel 1 is y
        out = crop_resize(picture, generator_for(3, 0), (20, 20), (0.6, 0.9), mode="bilinear").float()
        for low, high in ((out[:, 0, 10, 0], out[:, 0, 10, -1]), (out[:, 1, 0, 10], out[:, 1, -1, 10])):
            share = (high - low) / 0.95 / size  # from the middle of the first new pixel to that of the last
            assert 0.585 < share.min() < 0.65 and 0.85 < share.max() < 0.915
            start, end = low - share * size / 40, high + share * size / 40
            assert start.min() > -2 and end.max() < size + 1 and start.max() > 40 and end.min() < size - 40
        width, height = (out[:, 0, 10, -1] - out[:, 0, 10, 0]), (out[:, 1, -1, 10] - out[:, 1, 0, 10])
        assert abs(torch.corrcoef(torch.stack([width, height]))[0, 1]) < 0.2, "sides are drawn on their own"

    @pytest.mark.parametrize("fraction", [(0.0, 1.0), (0.9, 0.8), (0.5, 1.2)])
    def test_impossible_shares_are_refused(self, images, fraction):
        with pytest.raises(ValueError, match="0 < low <= high <= 1"):
            crop_resize(images, generator_for(0, 0), (8, 8), fraction)


class TestErase:
    @given(seed=st.integers(0, 10**6), high=st.integers(4, 40), wide=st.integers(4, 40))
    def test_one_rectangle_in_one_colour_and_nothing_else(self, seed, high, wide):
        images = torch.randint(200, 256, (6, 3, high, wide), dtype=torch.uint8, generator=generator_for(seed, 1))
        fill = (1, 100, 199)
        out = erase(images, generator_for(seed, 0), 1.0, fill=fill)
        for new, old in zip(out, images):
            painted = (new == torch.tensor(fill, dtype=torch.uint8)[:, None, None]).all(dim=0)
            rows, columns = painted.any(dim=1).nonzero()[:, 0], painted.any(dim=0).nonzero()[:, 0]
            assert painted[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
            assert painted.sum() == (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
            assert torch.equal(new[:, ~painted], old[:, ~painted])

    def test_probability_area_and_aspect(self):
        images = torch.full((3000, 3, 60, 40), 255, dtype=torch.uint8)
        painted = (erase(images, generator_for(0, 0), 0.4, area=(0.1, 0.3), aspect=0.5) != 255).any(dim=1)
        share = painted.float().mean(dim=(1, 2))
        assert (share > 0).float().mean() == pytest.approx(0.4, abs=0.03)
        hit = share[share > 0]
        assert 0.085 < hit.min() < 0.12 and 0.28 < hit.max() < 0.32 and hit.mean() == pytest.approx(0.2, abs=0.01)
        some = painted[share > 0]
        ratio = some.any(dim=2).sum(dim=1) / some.any(dim=1).sum(dim=1)
        assert 0.45 < ratio.min() < 0.55 and 1.8 < ratio.max() < 2.2
        assert ratio.log().mean().item() == pytest.approx(0, abs=0.05)
        corner = painted[:, 0, 0].float().mean()
        assert 0 < corner < painted[:, 30, 20].float().mean(), "the border is reached, and less often than the middle"


def test_normalise_by_hand(images):
    out = normalise(images, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert out.dtype == torch.float32
    for c, (mean, std) in enumerate(((0.1, 0.4), (0.2, 0.5), (0.3, 0.6))):
        assert out[5, c, 3, 2].item() == pytest.approx((images[5, c, 3, 2].item() / 255 - mean) / std, rel=1e-5)


@pytest.mark.parametrize("name", EVERY)
def test_the_generator_decides_and_the_input_stays(images, name):
    augment, before = EVERY[name], images.clone()
    first, again, other = (augment(images, generator_for(*at)) for at in ((7, 1), (7, 1), (7, 2)))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(images, before) and first.shape == images.shape
    assert first.dtype == (torch.float32 if name == "training" else torch.uint8)


class TestPersonInput:
    def test_testing_draws_nothing(self, images):
        view = PersonInput((HEIGHT, WIDTH), pad=3, erase=1.0)
        assert torch.equal(view(images), normalise(images))
        plain = replace(view, flip=0.0, pad=0, erase=0.0)
        assert torch.equal(plain.training(images, generator_for(0, 0)), normalise(images))

    def test_training_is_its_steps_in_order(self, images):
        view, generator = PersonInput((HEIGHT, WIDTH), pad=2, erase=0.5), generator_for(4, 2)
        expected = normalise(erase(pad_crop(flip(images, generator), generator, 2), generator, 0.5))
        assert torch.equal(view.training(images, generator_for(4, 2)), expected)

    def test_crops_come_at_the_size_of_the_input(self, images):
        assert PersonInput((30, 20), crop=0.85).training(images, generator_for(0, 0)).shape == (COUNT, 3, 30, 20)

    def test_other_sizes_are_refused(self, images):
        with pytest.raises(ValueError, match=r"images are 12 x 7 pixels.*pixels=\(256, 128\)"):
            PersonInput()(images)
