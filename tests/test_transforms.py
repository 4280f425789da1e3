"""Augmentation and the views of the test, against windows cut by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cdimlib.data.transforms import (
    SketchInput,
    Warp,
    centre_crop,
    fit_ink,
    random_crop_flip,
    resize,
    ten_views,
    to_input,
    wear,
)


def coordinates(count, height, width):
    """Images whose two channels hold the row and the column of each pixel."""
    rows = torch.arange(height, dtype=torch.uint8)[:, None].expand(height, width)
    columns = torch.arange(width, dtype=torch.uint8)[None].expand(height, width)
    return torch.stack([rows, columns]).expand(count, -1, -1, -1)


class TestTransforms:
    def test_random_crops_reach_every_offset(self):
        count, size = 3000, 9
        crops = random_crop_flip(coordinates(count, 12, 14), size, torch.Generator().manual_seed(0))
        assert crops.shape == (count, 2, size, size) and crops.dtype == torch.uint8
        top = crops[:, 0, 0, 0].int()
        mirrored = crops[:, 1, 0, 0] > crops[:, 1, 0, -1]
        left = crops[:, 1].flatten(1).min(dim=1).values.int()
        span = torch.arange(size)
        for n in range(200):  # each is one contiguous window, mirrored or not
            across = span.flip(0) if mirrored[n] else span
            assert torch.equal(crops[n, 0].int(), (top[n] + span)[:, None].expand(size, size).int())
            assert torch.equal(crops[n, 1].int(), (left[n] + across)[None].expand(size, size).int())
        for offset, last in ((top, 3), (left, 5)):
            counts = np.bincount(offset.numpy(), minlength=last + 1)
            assert len(counts) == last + 1 and counts.min() > 0.8 * count / (last + 1)  # 0 and H - size as often as any
        assert mirrored.float().mean().item() == pytest.approx(0.5, abs=0.03)
        assert abs(np.corrcoef(top, left)[0, 1]) < 0.06  # drawn on their own

    def test_random_crop_of_the_whole_and_too_large(self):
        image = coordinates(2, 6, 6)
        assert torch.equal(random_crop_flip(image, 6, torch.Generator(), flip=0), image)
        assert torch.equal(random_crop_flip(image, 6, torch.Generator(), flip=1), image.flip(-1))
        with pytest.raises(ValueError, match="cannot crop 7 pixels from images of 6 x 6"):
            random_crop_flip(image, 7, torch.Generator())

    def test_ten_views(self):
        image = coordinates(2, 12, 14)
        views = ten_views(image, 9)
        assert views.shape == (2, 10, 2, 9, 9)
        corners = [(0, 0), (0, 5), (3, 0), (3, 5), (1, 2)]
        for v, (top, left) in enumerate(corners):
            window = image[0, :, top : top + 9, left : left + 9]
            assert torch.equal(views[1, v], window) and torch.equal(views[0, v + 5], window.flip(-1))

    def test_centre_crop(self):
        assert centre_crop(coordinates(1, 12, 14), 8)[0, :, 0, 0].tolist() == [2, 3]

    @pytest.mark.parametrize("crop", [centre_crop, ten_views])
    def test_a_crop_larger_than_the_image(self, crop):
        with pytest.raises(ValueError, match="cannot crop 6 pixels from images of 8 x 4"):
            crop(coordinates(1, 8, 4), 6)

    def test_to_input_and_resize(self):
        image = torch.full((1, 1, 4, 4), 255, dtype=torch.uint8)
        assert to_input(image)[0, 0, 0, 0].item() == pytest.approx(255 - 250.42, rel=1e-5)
        assert to_input(image, mean=55, scale=0.5)[0, 0, 0, 0] == 100
        checks = (torch.arange(8) % 2 * 200).byte().expand(1, 1, 8, 8)
        assert resize(checks, 8) is checks
        small = resize(checks, 4)
        assert small.shape == (1, 1, 4, 4) and small.float().mean().item() == pytest.approx(100, abs=2)

    def test_sketch_input(self):
        view = SketchInput(225)
        assert view.canvas == 256
        assert view.ten(torch.zeros(2, 1, 256, 256, dtype=torch.uint8)).shape == (2, 10, 1, 225, 225)
        small = SketchInput(112, scale=1 / 255)
        assert small.canvas == 127
        paper = torch.full((3, 1, 256, 256), 255, dtype=torch.uint8)
        white = small.centre(small.on_canvas(paper))
        assert white.shape == (3, 1, 112, 112) and white.mean().item() == pytest.approx((255 - 250.42) / 255, rel=1e-4)
        with pytest.raises(ValueError, match=r"images are 256 x 256, the canvas 127 x 127: .*on_canvas"):
            small.centre(paper)


class TestWarp:
    STILL = Warp(rotate=0, scale=0, shear=0, shift=0, stretch=0, elastic=0, flip=0)

    @pytest.fixture
    def images(self):
        return torch.randint(256, (3, 1, 20, 20), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)

    def test_identity_when_all_amounts_are_zero(self, images):
        same = self.STILL(images, 20, torch.Generator().manual_seed(0))
        torch.testing.assert_close(same, images.float(), rtol=0, atol=1e-2)

    def test_smaller_output_is_the_centre_crop(self, images):
        same = self.STILL(images, 16, torch.Generator().manual_seed(0))
        torch.testing.assert_close(same, centre_crop(images, 16).float(), rtol=0, atol=1e-2)

    def test_mirrored_together(self, images):
        out = self.STILL(images, 20, torch.Generator().manual_seed(0), together=replace(self.STILL, flip=1))
        torch.testing.assert_close(out, images.flip(-1).float(), rtol=0, atol=1e-2)

    def test_a_common_warp_keeps_images_aligned_and_an_own_one_does_not(self, images):
        same = images[:1].repeat(4, 1, 1, 1)
        strong = Warp(rotate=20, scale=0.3, elastic=0.1)
        aligned = self.STILL(same, 16, torch.Generator().manual_seed(0), together=strong)
        assert (aligned - aligned[:1]).abs().max() < 1e-2
        assert (aligned - centre_crop(same, 16)).abs().mean() > 5
        apart = strong(same, 16, torch.Generator().manual_seed(0))
        assert (apart[1:] - apart[:1]).abs().mean() > 5

    @pytest.mark.parametrize(
        ("name", "amount"),
        [("rotate", 20), ("scale", 0.3), ("shear", 0.3), ("shift", 0.2), ("stretch", 0.3), ("elastic", 0.1),
         ("flip", 1)],
    )
    def test_every_amount_moves_ink_and_is_drawn_from_the_generator(self, images, name, amount):
        warp = replace(self.STILL, **{name: amount})
        moved = warp(images, 20, torch.Generator().manual_seed(0))
        assert (moved - images.float()).abs().mean() > 5
        assert torch.equal(moved, warp(images, 20, torch.Generator().manual_seed(0)))

    def test_shift_by_hand(self):
        """All mass of one black pixel moves by the drawn shift; what comes in from outside is white."""
        image = torch.full((1, 1, 21, 21), 255, dtype=torch.uint8)
        image[0, 0, 10, 10] = 0
        out = replace(self.STILL, shift=0.3)(image, 21, torch.Generator().manual_seed(3))
        ink = (255 - out[0, 0]) / 255
        assert ink.sum().item() == pytest.approx(1, abs=1e-3)
        assert ink[10, 10] < 0.5 and ink.min() >= 0


class TestFitInk:
    """Drawings brought to one scale, place and pen."""

    @staticmethod
    def drawing(top, left, height, width, side=60):
        """A rectangle's outline, one pixel wide, on white."""
        image = torch.full((1, 1, side, side), 255, dtype=torch.uint8)
        image[0, 0, top : top + height, left : left + width] = 0
        image[0, 0, top + 1 : top + height - 1, left + 1 : left + width - 1] = 255
        return image

    def test_place_and_scale_no_longer_matter(self):
        small, moved = fit_ink(self.drawing(8, 8, 15, 20), 40), fit_ink(self.drawing(30, 25, 15, 20), 40)
        assert torch.equal(small, moved)
        rows, columns = ((255 - small[0, 0]).sum(dim=d) > 0 for d in (1, 0))
        extent = [int(m.nonzero().max() - m.nonzero().min()) + 1 for m in (rows, columns)]
        assert extent[1] == pytest.approx(32, abs=1) and extent[0] == pytest.approx(32 * 17 / 22, abs=1.5)
        middle = [(m.nonzero().max() + m.nonzero().min()).item() / 2 for m in (rows, columns)]
        assert middle == pytest.approx([19.5, 19.5], abs=1)

    def test_the_frame_is_wiped_and_blank_stays_blank(self):
        framed = self.drawing(0, 0, 60, 60)
        assert fit_ink(framed, 40).min() == 255
        both = torch.minimum(framed, self.drawing(20, 20, 15, 20))
        assert torch.equal(fit_ink(both, 40), fit_ink(self.drawing(20, 20, 15, 20), 40))

    def test_one_by_one(self):
        drawings = torch.cat([self.drawing(8, 8, 15, 20), self.drawing(10, 10, 40, 9)])
        together = fit_ink(drawings, 40)
        assert all(torch.equal(together[i : i + 1], fit_ink(drawings[i : i + 1], 40)) for i in range(2))


class TestWear:
    @pytest.fixture
    def drawings(self):
        images = torch.full((200, 1, 40, 40), 255.0)
        images[:, :, 20, :] = 0.0
        return images

    def test_nothing_at_zero(self, drawings):
        before = drawings.clone()
        assert torch.equal(wear(drawings, 0.0, torch.Generator().manual_seed(0)), before)

    def test_share_gets_a_thicker_pen_and_share_gets_a_hole(self, drawings):
        before = drawings.clone()
        out = wear(drawings, 0.5, torch.Generator().manual_seed(0))
        assert torch.equal(drawings, before), "the input must stay as it is"
        ink = (out < 255).sum(dim=(2, 3))[:, 0]
        rows = (out < 255).any(dim=3).sum(dim=2)[:, 0]  # 3 with the thicker pen, 1 without
        assert set(rows.tolist()) <= {0, 1, 2, 3} and 60 < (rows > 1).sum() < 140
        assert (ink[(rows == 1)] >= 40 - 15).all() and ((ink < 40) & (rows == 1)).sum() > 5

    def test_everything_at_one(self, drawings):
        out = wear(drawings, 1.0, torch.Generator().manual_seed(0))
        assert ((out < 255).any(dim=3).sum(dim=2) > 1).all()
