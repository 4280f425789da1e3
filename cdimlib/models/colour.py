"""People before deep learning: colours and textures counted in horizontal stripes, and a metric learned from pairs.

The common core of what was usual until 2015 (LOMO and XQDA, Liao et al.), built from scikit-image and scikit-learn.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from skimage.color import rgb2lab
from skimage.feature import local_binary_pattern
from sklearn.decomposition import PCA
from torch import Tensor
from torch.nn import functional as F

from .matcher import Fitted, VectorMatcher

LAB = np.float32([[0, 60, 60], [100, 120, 120]])  # shift and range of lightness, a and b
CODES, SHRINK = 10, 0.02  # uniform patterns of eight neighbours; how much of D is mixed into S, against few pairs


def grey_world(images: Tensor, target: float = 0.45) -> Tensor:
    """Colour constancy: scale red, green and blue of each image [N, 3, H, W] (0..1) to one mean ("grey world")."""
    return (images * target / images.mean(dim=(2, 3), keepdim=True).clamp_min(0.02)).clamp(0, 1)


def lab_unit(images: Tensor) -> np.ndarray:
    """RGB [N, 3, H, W] in 0..1 -> CIE Lab [N, H, W, 3] with lightness 0..100 and a, b from -60 to 60, each as 0..1."""
    lab = rgb2lab(images.permute(0, 2, 3, 1).cpu().numpy())  # [N, 3, H, W] -> [N, H, W, 3]
    return np.clip((lab + LAB[0]) / LAB[1], 0, 1)


def votes(values: np.ndarray, bins: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Values [..., 3] in 0..1 -> bin numbers and weights, both [8, ...].

    On each axis the two nearest bins get a vote, the nearer the more; all add up to 1. Numbered last axis fastest.
    """
    place = np.moveaxis(values * np.array(bins) - 0.5, -1, 0)  # [3, ...]
    low = np.floor(place)
    number = [[(p + side).clip(0, b - 1).astype(int) for side in (0, 1)] for p, b in zip(low, bins)]
    weight = [(1 - p, p) for p in place - low]
    return (np.stack([np.ravel_multi_index(corner, bins) for corner in itertools.product(*number)]),
            np.stack([np.prod(corner, axis=0) for corner in itertools.product(*weight)]))


class ColourTexture(VectorMatcher):
    """Histograms of colour and texture in horizontal stripes; nothing is learned.

    ``encode``: float images [N, 3, H, W], 0..255 -> [N, stripes * (bins + 10)], of unit length; 2,364 numbers by
    default. They are square roots of shares: a product of two features is a mean of Bhattacharyya coefficients.

    stripes: their number; a pixel between the middles of two counts for both, the more for the nearer one.
    bins: of the joint histogram over lightness, a and b of CIE Lab. constancy: :func:`grey_world` first.
    texture: weight of local binary patterns of lightness (uniform, eight neighbours at one pixel); colour has 1.
    centre: standard deviation of a Gaussian weight over the columns, as a share of the width.
    """

    def __init__(self, *, stripes: int = 6, bins: tuple[int, int, int] = (6, 8, 8), constancy: bool = True,
                 texture: float = 1.0, centre: float = 0.2):  # fmt: skip
        super().__init__()
        if min(stripes, *bins, centre) <= 0 or len(bins) != 3:
            raise ValueError(f"need stripes, three bins and centre above 0 (got {stripes}, {bins} and {centre})")
        self.stripes, self.bins, self.constancy, self.texture, self.centre = stripes, bins, constancy, texture, centre

    def _count(self, number: np.ndarray, weight: np.ndarray, kinds: int) -> np.ndarray:
        """Votes of one image [V, H, W] -> [stripes, kinds], where each stripe sums to 1."""
        _, h, w = number.shape
        weight = weight * np.exp(-0.5 * (((np.arange(w) + 0.5) / w - 0.5) / self.centre) ** 2)
        place = np.arange(h)[:, None] * kinds + number
        rows = np.bincount(place.ravel(), weight.ravel(), h * kinds).reshape(h, kinds)
        row, middle = (np.arange(h) + 0.5) / h * self.stripes, np.arange(self.stripes)[:, None] + 0.5
        stripes = np.clip(1 - abs(row - middle), 0, None) @ rows  # windows [stripes, H], triangles
        return stripes / stripes.sum(axis=1, keepdims=True)

    def histograms(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Shares of the colours [N, stripes, bins] and of the patterns [N, stripes, 10]."""
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] < self.stripes:
            raise ValueError(f"need colour images [N, 3, H, W] with a row per stripe; got {tuple(images.shape)}")
        if images.is_floating_point() and 0 < images.max() <= 1:
            raise ValueError("the images' values lie between 0 and 1, histograms are of 0 to 255: multiply them by 255")
        images, colours, patterns = images.float().cpu() / 255, [], []
        for lab in lab_unit(grey_world(images) if self.constancy else images):  # [H, W, 3]
            code = local_binary_pattern((255 * lab[..., 0]).round().astype(np.uint8), 8, 1, "uniform").astype(int)
            colours.append(self._count(*votes(lab, self.bins), int(np.prod(self.bins))))
            patterns.append(self._count(code[None], np.ones((1, *code.shape)), CODES))
        return tuple(torch.from_numpy(np.stack(shares)).float() for shares in (colours, patterns))

    def encode(self, images: Tensor) -> Tensor:
        colour, pattern = (shares.sqrt().flatten(1) for shares in self.histograms(images))  # [N, stripes * kinds]
        return F.normalize(torch.cat([colour, self.texture * pattern], dim=1), dim=1).to(images.device)


class PairMetric(Fitted, VectorMatcher):
    """KISSME (Köstinger et al., 2012) after PCA, on the features of another matcher; scored by the cosine.

    S: covariance of differences between images of one person by two cameras; D: of differences between any two images.
    The squared distance is (a - b)' (S^-1 - D^-1) (a - b). PCA with whitening (scikit-learn) makes D twice the unit
    matrix, so an eigenvector of S with eigenvalue l gets the weight 1/l - 1/2, or 0 where one person varies more than a
    crowd (XQDA drops the same). The cosine is ours. dims, seed: of PCA and its randomised solver.
    """

    def __init__(self, matcher: VectorMatcher, *, dims: int = 80, seed: int = 0):
        super().__init__("cosine")
        self.matcher, self.dims, self.seed = matcher, dims, seed
        for name in ("mean", "weight"):  # [D], [D, dims]
            self.register_buffer(name, None)

    def fit(self, features: Tensor, ids: np.ndarray, cams: np.ndarray) -> PairMetric:
        """Learn from features [N, D] of training images with their identities and cameras [N]."""
        groups = [np.flatnonzero(ids == i) for i in np.unique(ids)]
        a, b = np.concatenate([mine[np.stack(np.triu_indices(len(mine), 1))] for mine in groups], axis=1)
        a, b = np.stack([a, b])[:, cams[a] != cams[b]]  # [pairs]
        if not len(a):
            raise ValueError(f"no image of {len(groups)} identities has a partner from another camera: no pairs")
        dims = min(self.dims, len(features) - 1, features.shape[1])
        pca = PCA(dims, whiten=True, svd_solver="randomized", random_state=self.seed)
        white = pca.fit_transform(features.float().cpu().numpy())  # [N, dims]
        differ = white[a] - white[b]  # [pairs, dims]
        values, vectors = np.linalg.eigh((1 - SHRINK) * differ.T @ differ / len(a) + 2 * SHRINK * np.eye(dims))
        weight = pca.components_.T / np.sqrt(pca.explained_variance_) @ vectors * (1 / values - 0.5).clip(0) ** 0.5
        self.mean, self.weight = torch.from_numpy(pca.mean_).float(), torch.from_numpy(weight).float()
        return self

    def project(self, features: Tensor) -> Tensor:
        """Features of the matcher [N, D] -> [N, dims]."""
        if self.weight is None:
            raise RuntimeError("PairMetric has learned nothing yet: call fit(features, ids, cams) first")
        return (features - self.mean.to(features)) @ self.weight.to(features)

    def encode(self, images: Tensor) -> Tensor:
        return self.project(self.matcher.encode(images))
