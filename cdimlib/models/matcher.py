"""The one idea: a matcher encodes images once and scores pairs of features."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Matcher(nn.Module):
    """Two verbs. Every method of the book, learned or not, is one of these.

    ``encode(images)``: float images [N, C, H, W] -> features [N, ...], once per image.
    ``score(queries, gallery)``: features [Q, ...], [G, ...] -> similarity [Q, G]; higher means more alike.
    """

    def encode(self, images: Tensor) -> Tensor:
        raise NotImplementedError

    def score(self, queries: Tensor, gallery: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, C, H, W] -> features, as :meth:`encode`."""
        return self.encode(images)


def single(features: Tensor) -> Tensor:
    """Features in at least single precision."""
    return features.to(torch.promote_types(features.dtype, torch.float32))


class Fitted(nn.Module):
    """Holds buffers that are None until they are learned, and takes them from a ``state_dict`` all the same."""

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        for name, value in self._buffers.items():
            if value is None and prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name]))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class VectorMatcher(Matcher):
    """Features are vectors [N, D]; the score is minus the Euclidean distance, or the cosine.

    Distances come from a matrix product, fast and good to six digits of the vectors' own length: subtract a common mean
    from vectors that are much farther from the origin than from each other (or ask :class:`VectorIndex`, which is
    exact). Features in half precision are compared in single precision.

    squared: score by minus the *squared* distance (same ranking; other values when views are averaged).
    """

    def __init__(self, metric: str = "euclidean", *, squared: bool = False):
        super().__init__()
        if metric not in ("euclidean", "cosine"):
            raise ValueError(f"metric must be 'euclidean' or 'cosine', not {metric!r}")
        self.metric, self.squared = metric, squared

    def score(self, queries: Tensor, gallery: Tensor) -> Tensor:
        if queries.shape[-1] != gallery.shape[-1]:
            raise ValueError(
                f"queries have {queries.shape[-1]} dimensions, the gallery {gallery.shape[-1]}: "
                "were they encoded by the same model?"
            )
        queries, gallery = single(queries), single(gallery)
        if self.metric == "cosine":
            return self.cosine(queries, gallery)
        distance = torch.cdist(queries, gallery)
        return -distance.square() if self.squared else -distance

    def cosine(self, queries: Tensor, gallery: Tensor) -> Tensor:
        """Cosine of every pair, [Q, D], [G, D] -> [Q, G] in [-1, 1]: what the in-batch contrastive loss compares."""
        normalise = nn.functional.normalize
        return normalise(queries, dim=-1) @ normalise(gallery, dim=-1).mT


class MultiView(Matcher):
    """Encode several views of each image and average the scores of view i against view i.

    This is the test of midlevel-fusion and of "Sketch me that shoe": ten crops of each image, ten distances, their
    mean. ``views`` maps images [N, C, H, W] to [N, V, C, h, w]; features are [N, V, D].
    """

    def __init__(self, matcher: Matcher, views):
        super().__init__()
        self.matcher, self.views = matcher, views

    def encode(self, images: Tensor) -> Tensor:
        views = self.views(images)  # [N, V, C, h, w]
        features = self.matcher.encode(views.flatten(0, 1))  # [N * V, D]
        return features.unflatten(0, views.shape[:2])  # [N, V, D]

    def score(self, queries: Tensor, gallery: Tensor) -> Tensor:
        total = 0.0
        for view in range(queries.shape[1]):
            total = total + self.matcher.score(queries[:, view], gallery[:, view])
        return total / queries.shape[1]
