"""Samplers: matching pairs, human judgements, and nothing but (seed, step) decides."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import torch

from cdimlib.data import PHOTO, SKETCH, Benchmark, Split
from cdimlib.data.samplers import (
    IdentitySampler,
    PairSampler,
    PlainSampler,
    TripletSampler,
    generator_for,
    index_by_identity,
)


def pairs(count, start=0, group=None, size=8):
    """A split with one photo and one sketch of each of ``count`` identities; every image is filled with its index."""
    images = torch.arange(2 * count, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, size, size).clone()
    ids = np.tile(np.arange(start, start + count), 2)
    groups = None if group is None else np.full(2 * count, group)
    return Split(images, ids, np.repeat([PHOTO, SKETCH], count), groups=groups)


def judgements(count, photos=4, seed=0):
    """Human judgements [count, 12, 2]: each anchor has ``photos`` annotated photos, its own among them."""
    rng = np.random.default_rng(seed)
    out = []
    for anchor in range(count):
        near = np.append(rng.choice(np.delete(np.arange(count), anchor), photos - 1, replace=False), anchor)
        couples = np.array(list(itertools.combinations(near, 2)))
        couples = np.where(rng.random(len(couples))[:, None] < 0.5, couples, couples[:, ::-1])
        out.append(np.concatenate([couples, couples[:, ::-1]]))
    return np.array(out)


class TestPairSampler:
    def test_matching_pairs_of_every_category(self):
        split = Split.join([pairs(5, group=0), pairs(9, start=5, group=1)])
        photo, sketch, group = PairSampler(split, 4)(0, 0)
        assert (split.ids[photo] == split.ids[sketch]).all() and (split.groups[photo] == group).all()
        assert set(split.cams[photo]) == {PHOTO} and set(split.cams[sketch]) == {SKETCH}
        assert np.bincount(group).tolist() == [4, 4]

    @pytest.mark.parametrize("count", [12, 14])
    def test_without_replacement(self, count):
        sampler = PairSampler(pairs(count), 4)
        orders = []
        for start in (0, 3, 6):
            seen = np.concatenate([sampler(1, step)[0] for step in range(start, start + 3)])
            assert len(set(seen)) == 12
            orders.append(seen.tolist())
        assert orders[0] != orders[1] != orders[2]
        assert set(np.concatenate([sampler(1, step)[0] for step in range(60)])) == set(range(count))

    def test_pure_function_of_seed_and_step(self):
        split = pairs(30)
        forward, backward = PairSampler(split, 8), PairSampler(split, 8)
        first = [forward(5, step) for step in range(9)]
        second = [backward(5, step) for step in reversed(range(9))][::-1]
        assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
        assert not np.array_equal(forward(5, 0), forward(6, 0))

    def test_small_category_and_errors(self):
        split = Split.join([pairs(3, group=0), pairs(9, start=3, group=1)])
        sampler = PairSampler(split, 6)
        assert np.bincount(sampler(0, 0)[2]).tolist() == [3, 6] and sampler.steps_per_epoch == 2
        with pytest.raises(ValueError, match=r"category 0 has 1 identities with both a photo and a sketch; need two"):
            PairSampler(pairs(1), 2)
        photos_only = split.where(split.cams == PHOTO)
        with pytest.raises(ValueError, match="has 0 identities"):
            PairSampler(photos_only, 2)
        with pytest.raises(ValueError, match=r"per_group must be at least 1 \(got 0\)"):
            PairSampler(split, 0)

    def test_generator(self):
        draw = lambda seed, step: torch.rand(3, generator=generator_for(seed, step)).tolist()  # noqa: E731
        assert draw(0, 1) == draw(0, 1) != draw(0, 2)
        assert draw(1, 0) != draw(0, 1)

    def test_index_of_all_images(self):
        split = Split.join([pairs(2), pairs(2)])
        for cam, expected in ((PHOTO, {0: [0, 4], 1: [1, 5]}), (SKETCH, {0: [2, 6], 1: [3, 7]})):
            assert {identity: at.tolist() for identity, at in index_by_identity(split, cam).items()} == expected
        assert index_by_identity(split, 2) == {}

    @pytest.mark.parametrize("judged", [None, True])
    def test_all_sketches_and_photos_of_an_identity_are_used(self, judged):
        """And the order of identities, and judgements, are the same as with one of each."""
        count, several = 6, Split.join([pairs(6), pairs(6), pairs(6)])
        triplets = judgements(count) if judged else None
        for make in (lambda split: PairSampler(split, 4), lambda split: TripletSampler(split, triplets, 5)):
            many, one, used = make(several), make(pairs(count)), set()
            for step in range(60):
                batch, plain = many(3, step), one(3, step)
                for here, there in zip(batch[:2], plain[:2]):
                    assert (several.ids[here] == pairs(count).ids[there]).all()
                used |= {int(i) for part in (batch if make(several).__class__ is TripletSampler else batch[:2])
                         for i in part}
                assert all(np.array_equal(a, b) for a, b in zip(batch, many(3, step)))
            assert used == set(range(len(several)))


class TestTripletSampler:
    COUNT = 15

    @pytest.fixture
    def judged(self):
        return judgements(self.COUNT)

    def draws(self, sampler, steps=200):
        """(anchor, positive, negative) identities of many steps."""
        split = pairs(self.COUNT)
        found = []
        for step in range(steps):
            anchor, positive, negative = sampler(0, step)
            assert set(split.cams[anchor]) == {SKETCH}
            assert set(split.cams[positive]) | set(split.cams[negative]) == {PHOTO}
            found.append(np.stack([split.ids[anchor], split.ids[positive], split.ids[negative]], 1))
        return np.concatenate(found)

    def test_a_split_without_sketches(self, judged):
        with pytest.raises(ValueError, match=r"no identity has both a photo \(camera 0\) and a sketch \(camera 1\)"):
            TripletSampler(pairs(5).where(np.arange(5)), judged)

    def test_circular_order(self, judged):
        anchors = self.draws(TripletSampler(pairs(self.COUNT), judged, batch_size=4), steps=30)[:, 0]
        assert anchors.tolist() == [i % self.COUNT for i in range(120)]

    def test_hard_ratio_one_draws_judgements_uniformly(self, judged):
        found = self.draws(TripletSampler(pairs(self.COUNT), judged, 50, hard_ratio=1), steps=360)
        for anchor in range(self.COUNT):
            counts = Counter(map(tuple, found[found[:, 0] == anchor, 1:].tolist()))
            assert set(counts) == set(map(tuple, judged[anchor].tolist()))  # 12 ordered pairs, each once in the list
            expected = 1200 / 12
            chi_square = sum((c - expected) ** 2 / expected for c in counts.values())
            assert chi_square < 40  # 11 degrees of freedom: p < 4e-5 for each of 15 anchors

    def test_a_repeated_judgement_counts_as_often_as_it_stands_there(self):
        judged = np.array([[[0, 1]] * 3 + [[1, 0]]] * self.COUNT)
        found = self.draws(TripletSampler(pairs(self.COUNT), judged, 50, hard_ratio=1))
        assert (found[:, 1] == 0).mean() == pytest.approx(0.75, abs=0.02)

    def test_hard_ratio_zero_never_draws_an_annotated_photo(self, judged):
        found = self.draws(TripletSampler(pairs(self.COUNT), judged, 50, hard_ratio=0), steps=360)
        for anchor in range(self.COUNT):
            counts = Counter(found[found[:, 0] == anchor, 2].tolist())
            assert set(counts) == set(range(self.COUNT)) - set(judged[anchor].ravel().tolist())  # all 11 others occur
            expected = 1200 / 11
            assert sum((c - expected) ** 2 / expected for c in counts.values()) < 40
            assert set(found[found[:, 0] == anchor, 1]) <= set(judged[anchor].ravel())

    def test_hard_ratio_is_the_share_of_judged_negatives(self, judged):
        found = self.draws(TripletSampler(pairs(self.COUNT), judged, 50, hard_ratio=0.75))
        hard = [negative in judged[anchor] for anchor, _, negative in found]
        assert np.mean(hard) == pytest.approx(0.75, abs=0.02)

    def test_handbags_rule(self):
        found = self.draws(TripletSampler(pairs(self.COUNT), None, 50, hard_ratio=0.75), steps=360)
        assert (found[:, 1] == found[:, 0]).all() and (found[:, 2] != found[:, 0]).all()
        counts = Counter(map(tuple, found[:, [0, 2]].tolist()))
        assert len(counts) == self.COUNT * (self.COUNT - 1)
        assert max(counts.values()) < 1.5 * 1200 / 14

    def test_pure_function_of_seed_and_step(self, judged):
        sampler = TripletSampler(pairs(self.COUNT), judged, 8)
        assert np.array_equal(sampler(3, 7), TripletSampler(pairs(self.COUNT), judged, 8)(3, 7))
        assert not np.array_equal(sampler(3, 7), sampler(4, 7))

    def test_held_out_identities_are_never_drawn(self, judged):
        train = pairs(self.COUNT)
        bench = Benchmark("toy", train, train, train, triplets=judged, categories=("toy",)).with_validation(0.4)
        held = set(bench.query.ids)
        sampler = TripletSampler(bench.train, bench.triplets, 50, hard_ratio=0.5)
        near = {a: set(judged[a].ravel()) for a in range(self.COUNT)}
        for step in range(100):
            anchor, positive, negative = (bench.train.ids[i] for i in sampler(0, step))
            assert not held & (set(anchor) | set(positive) | set(negative))
            assert all(p in near[a] for a, p in zip(anchor, positive, strict=True))

    def test_annotated_photos_stay_out_even_when_their_judgements_were_held_out(self):
        """Photo 1 is judged only against photo 2, which is not in the split: it is annotated all the same."""
        judged = np.array([[[0, 3], [1, 2]]] * self.COUNT)
        split = pairs(self.COUNT)
        sampler = TripletSampler(split.where(split.ids != 2), judged, 50, hard_ratio=0)
        kept = split.where(split.ids != 2)
        drawn = set(np.concatenate([kept.ids[sampler(0, step)[2]] for step in range(60)]))
        assert drawn == set(range(4, self.COUNT))

    def test_errors(self, judged):
        with pytest.raises(ValueError, match=r"hard_ratio must lie in \[0, 1\] \(got 1.5\)"):
            TripletSampler(pairs(self.COUNT), judged, hard_ratio=1.5)
        with pytest.raises(ValueError, match="judgements for 15 sketches, none for identity 15"):
            TripletSampler(pairs(self.COUNT, start=1), judged)
        with pytest.raises(ValueError, match="no training sketch has a judgement"):
            TripletSampler(pairs(1), judged)
        with pytest.raises(ValueError, match=r"every photo is annotated for sketch 0: .*hard_ratio=1"):
            TripletSampler(pairs(4), judgements(4))
        TripletSampler(pairs(4), judgements(4), 2, hard_ratio=1)(0, 0)


def crowd(counts):
    """A split in which identity 10 * i has ``counts[i]`` images."""
    ids = np.repeat(10 * np.arange(len(counts)), counts)
    return Split(torch.zeros(len(ids), 3, 2, 2, dtype=torch.uint8), ids, np.zeros(len(ids), int))


class TestPlainSampler:
    def test_every_image_once_before_any_twice(self):
        sampler = PlainSampler(crowd([3, 9, 8]), 6)
        assert sampler.steps_per_epoch == 3 and sampler.classes == 3
        orders = []
        for epoch in range(4):
            seen = np.concatenate([sampler(2, 3 * epoch + step) for step in range(3)])
            assert len(set(seen)) == 18
            orders.append(seen.tolist())
        assert len({str(order) for order in orders}) == 4
        assert set(np.concatenate([sampler(0, step) for step in range(60)])) == set(range(20))

    def test_labels_are_class_numbers(self):
        split = crowd([2, 1, 4])
        sampler = PlainSampler(split, 4)
        assert sampler.labels.tolist() == [0, 0, 1, 2, 2, 2, 2]
        assert (sampler.identities[sampler.labels] == split.ids).all()

    def test_a_split_smaller_than_a_batch(self):
        assert sorted(PlainSampler(crowd([2, 3]), 64)(0, 5)) == [0, 1, 2, 3, 4]
        with pytest.raises(ValueError, match="batch_size must be at least 1"):
            PlainSampler(crowd([2]), 0)
        with pytest.raises(ValueError, match="no training images"):
            PlainSampler(crowd([2]).where(np.zeros(2, bool)), 4)


class TestIdentitySampler:
    def test_as_many_images_of_each_identity(self):
        sampler = IdentitySampler(crowd([1, 2, 5, 9, 4, 7]), 3, 4)
        assert sampler.steps_per_epoch == 2
        for step in range(40):
            batch = sampler(1, step).reshape(3, 4)
            labels = sampler.labels[batch]
            assert (labels == labels[:, :1]).all() and len(set(labels[:, 0])) == 3
            for images, label in zip(batch, labels[:, 0]):
                copies = np.bincount(images, minlength=28)[np.flatnonzero(sampler.labels == label)]
                assert copies.max() - copies.min() <= 1, "no image twice before each came once"

    def test_every_identity_equally_often(self):
        """However many images it has: 12 identities, batches of 5, two batches to an order."""
        sampler = IdentitySampler(crowd([1] * 11 + [200]), 5, 2)
        seen = Counter(int(sampler.labels[i]) for step in range(600) for i in sampler(0, step)[::2])
        assert sum(seen.values()) == 3000 and max(seen.values()) < 1.15 * min(seen.values())
        first = np.concatenate([sampler.labels[sampler(3, step)] for step in range(2)])
        assert np.bincount(first).max() == 2, "no identity twice in one order"

    def test_fewer_identities_than_asked_for(self):
        assert len(IdentitySampler(crowd([2, 3]), 16, 4)(0, 0)) == 8
        with pytest.raises(ValueError, match="identities and images must be at least 1"):
            IdentitySampler(crowd([2]), 0)


@pytest.mark.parametrize("sampler", [PlainSampler(crowd([4] * 9), 5), IdentitySampler(crowd([4] * 9), 4, 3)])
def test_people_are_drawn_by_seed_and_step_alone(sampler):
    forward = [sampler(5, step) for step in range(12)]
    backward = [sampler(5, step) for step in reversed(range(12))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forward, backward, strict=True))
    assert not np.array_equal(forward[0], sampler(6, 0))
