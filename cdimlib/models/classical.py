"""Before deep learning (and with deep features, but before learning to match): the first rows of the paper's Table 3.

The paper cites these baselines and says nothing about their settings. What is open there, and what is done here, is
said in each docstring; the settings that matter are chosen on held-out training identities (:mod:`cdimlib.baselines`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from skimage.feature import hog
from skimage.filters import gaussian
from sklearn.cluster import MiniBatchKMeans
from sklearn.metrics import pairwise_distances_argmin
from sklearn.svm import LinearSVC
from torch import Tensor

from .matcher import Fitted, VectorMatcher
from .sketchanet import SketchANet, check_taps


def _ink(images: Tensor, side: int, blur: float) -> Iterator[np.ndarray]:
    """Ink (0 paper .. 1 line) of drawings [N, 1, H, W] in 0..255, one [side, side] array after the other."""
    if images.ndim != 4 or images.shape[1] != 1:
        raise ValueError(f"HOG reads grey drawings [N, 1, H, W], got {tuple(images.shape)}: turn colour to grey first")
    ink = 1 - images.float().cpu() / 255
    if ink.shape[-2:] != (side, side):
        ink = F.interpolate(ink, (side, side), mode="bilinear", antialias=True)
    for drawing in ink[:, 0].numpy():
        yield gaussian(drawing, blur * side) if blur else drawing


class DenseHOG(VectorMatcher):
    """Histograms of oriented gradients over the whole image on one fixed grid; nothing is learned.

    ``encode``: float images [N, 1, H, W], 0..255, dark lines on white -> [N, D] with
    D = (cells - block + 1)^2 * block^2 * orientations; 1,764 numbers by default. The score is minus the Euclidean
    distance. Feature k is about the same place in every image, so the drawings have to be aligned.

    side: images are brought to this size first. cells: cells along each side. block: cells along each side of the
    blocks that are normalised together (L2-Hys). orientations: bins over half a turn. blur: standard deviation of a
    Gaussian before the gradients, as a share of the side: a thin line has a gradient only right beside it, and a hand
    never draws it in exactly that place.

    The paper names Hu & Collomosse, "A performance evaluation of gradient field HOG descriptor for sketch based image
    retrieval" (2013), for this row and gives no grid, no cell size and no blur: all are ours, and the descriptor is
    the plain one of Dalal & Triggs (2005), computed by scikit-image.
    """

    def __init__(
        self, *, side: int = 128, cells: int = 8, block: int = 2, orientations: int = 9, blur: float = 1 / 64,
        metric: str = "euclidean",
    ):
        super().__init__(metric)
        if side % cells:
            raise ValueError(f"{cells} cells do not divide a side of {side}: take side={max(2, side // cells) * cells}")
        if side < 2 * cells or not 1 <= block <= cells:
            raise ValueError(
                f"a grid of {cells} cells needs an image side of at least {2 * cells} and blocks of 1 to {cells} "
                f"cells; got side={side}, block={block}"
            )
        self.side, self.cells, self.block, self.orientations, self.blur = side, cells, block, orientations, blur

    def encode(self, images: Tensor) -> Tensor:
        cell = self.side // self.cells
        rows = [
            hog(ink, self.orientations, (cell, cell), (self.block, self.block))
            for ink in _ink(images, self.side, self.blur)
        ]
        return torch.from_numpy(np.stack(rows)).float().to(images.device)  # [N, D]


class HOGBoW(Fitted, VectorMatcher):
    """A bag of visual words: HOG of local patches, each replaced by its nearest word, and the words counted.

    ``encode``: float images [N, 1, H, W], 0..255 -> histograms [N, words] of unit length. Where a patch was is
    forgotten (but for what patches cut by the border give away). Call :meth:`fit` first: it learns the vocabulary.

    side: images are brought to this size. patch, stride: pixels; patches lie on a dense grid, and only those with ink
    count. patch must be a multiple of stride, which is also the size of a HOG cell. words: size of the vocabulary.
    root: take the square root of the counts before normalising (Hellinger), which tames words that occur everywhere.
    samples: descriptors drawn for k-means. seed: of the draw and of k-means.

    The paper names Li et al., "Free-hand sketch recognition by multi-kernel feature learning" (2015), and gives no
    patch size, no density and no vocabulary size. The patch of a quarter of the image is ours: sketches have little
    texture, so small patches hold nothing but a stroke. Vocabulary by scikit-learn's mini-batch k-means.
    """

    def __init__(
        self, *, words: int = 500, side: int = 128, patch: int = 32, stride: int = 8, orientations: int = 9,
        root: bool = False, samples: int = 20_000, seed: int = 0,
    ):
        super().__init__()
        if patch % stride or not stride <= patch <= side:
            raise ValueError(
                f"patch must be a multiple of stride and fit into the image; got patch={patch}, stride={stride}, "
                f"side={side}"
            )
        if words < 2:
            raise ValueError(f"a vocabulary needs at least two words (got {words})")
        self.words, self.side, self.patch, self.stride, self.orientations = words, side, patch, stride, orientations
        self.root, self.samples, self.seed = root, samples, seed
        self.register_buffer("vocabulary", None)  # [words, D]

    def describe(self, images: Tensor) -> list[np.ndarray]:
        """HOG of every patch with ink: per image float32 [patches, D], D = (patch / stride)^2 * orientations."""
        per_side, cell = self.patch // self.stride, (self.stride, self.stride)
        out = []
        for ink in _ink(images, self.side, 0.0):
            blocks = hog(ink, self.orientations, cell, (per_side, per_side), feature_vector=False)
            patches = blocks.reshape(-1, per_side**2 * self.orientations)  # [ny, nx, b, b, o] -> [ny * nx, D]
            out.append(patches[np.linalg.norm(patches, axis=1) > 0.5].astype(np.float32))  # L2-Hys: length 1, or blank
        return out

    def fit(self, images: Tensor | None = None, *, described: list[np.ndarray] | None = None) -> HOGBoW:
        """Learn the vocabulary from training images (or from what :meth:`describe` gave for them)."""
        described = self.describe(images) if described is None else described
        everything = np.concatenate(described)
        if len(everything) < self.words:
            raise ValueError(
                f"{len(everything)} patches with ink in {len(described)} images are too few for {self.words} words: "
                "give more images, a smaller stride or a smaller vocabulary"
            )
        rng = np.random.default_rng(self.seed)
        drawn = everything[rng.permutation(len(everything))[: self.samples]]
        means = MiniBatchKMeans(self.words, n_init=1, random_state=self.seed, batch_size=2048, max_iter=20)
        self.vocabulary = torch.from_numpy(means.fit(drawn).cluster_centers_)
        return self

    def histogram(self, described: list[np.ndarray]) -> Tensor:
        """Counts of the words in described images -> float [N, words] of unit length; all zeros for a blank image."""
        if self.vocabulary is None:
            raise RuntimeError("HOGBoW has no vocabulary yet: call fit(training images) first")
        counts = np.zeros((len(described), self.words), np.float32)
        image = np.repeat(np.arange(len(described)), [len(patches) for patches in described])
        if len(image):
            word = pairwise_distances_argmin(np.concatenate(described), self.vocabulary.cpu().numpy())
            np.add.at(counts, (image, word), 1)
        histogram = torch.from_numpy(np.sqrt(counts) if self.root else counts)
        return F.normalize(histogram, dim=1)

    def encode(self, images: Tensor) -> Tensor:
        return self.histogram(self.describe(images)).to(images.device)


class DeepFeatures(VectorMatcher):
    """Features of a network trained for something else ("ISN Deep": Sketch-a-Net trained to recognise sketches).

    ``encode``: images as the network was trained with them [N, 1, s, s] -> [N, D], of unit length; D is 512 for fc6.
    No gradient reaches the network.

    layer: "fc6", "fc7", or a map ("pool5", ...), flattened. The paper does not say which layer it took, nor how the
    features were normalised; fc6 and unit length are ours. Its network knew the 250 categories of TU-Berlin.
    """

    def __init__(self, net: SketchANet, layer: str = "fc6", *, metric: str = "euclidean"):
        super().__init__(metric)
        if layer not in ("fc6", "fc7"):
            check_taps(layer)
        self.net, self.layer = net, layer

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        stages = self.net.stages(images, keep=(self.layer,))
        return F.normalize(stages[self.layer].float().flatten(1), dim=1)  # [N, C, h, w] -> [N, C * h * w]


class RankSVM(Fitted, VectorMatcher):
    """A linear weighting of the dimensions of another matcher's features, learned from triplets.

    A triplet says: for this sketch the *preferred* photo is more alike than the *other*. With the pair feature
    phi(q, p) = -(q - p)^2, element by element, the score is w . phi(q, p) and the SVM wants it higher for the preferred
    photo: w . (phi(q, preferred) - phi(q, other)) >= 1, with hinge loss and scikit-learn's LinearSVC. The papers name
    rankSVM (Joachims, 2002) and do not say what the feature of a *pair* across two domains is: this one is our choice.
    It makes plain (squared) Euclidean distance the case w = 1, and a weight may become negative.

    matcher: any :class:`VectorMatcher`; its ``encode`` is used as it is.
    c: the SVM's C, after the differences have been scaled to a mean length of 1.
    prior: with prior = 0 the SVM starts from w = 0, where nothing is known. A positive value adds the plain squared
    distance as one further feature of that weight, so that w = constant is cheap and the data only have to say
    where to depart from it. Also ours; with a few hundred training objects and thousands of dimensions it matters.
    max_iter: of LinearSVC, which warns if it stops there. seed: of LinearSVC.
    """

    def __init__(
        self, matcher: VectorMatcher, *, c: float = 0.1, prior: float = 3.0, max_iter: int = 1000, seed: int = 0
    ):
        super().__init__()
        if c <= 0 or prior < 0:
            raise ValueError(f"need c > 0 and prior >= 0; got c={c}, prior={prior}")
        self.matcher, self.c, self.prior, self.max_iter, self.seed = matcher, c, prior, max_iter, seed
        self.register_buffer("weight", None)

    def encode(self, images: Tensor) -> Tensor:
        return self.matcher.encode(images)

    def fit(self, queries: Tensor, preferred: Tensor, other: Tensor) -> RankSVM:
        """Learn the weights from features [T, D] of T triplets (row i of each belongs together)."""
        if not queries.shape == preferred.shape == other.shape or queries.ndim != 2 or not len(queries):
            shapes = ", ".join(str(tuple(x.shape)) for x in (queries, preferred, other))
            raise ValueError(f"the three parts of the triplets must have one shape [T, D]; got {shapes}")
        if len(queries) < 2:
            raise ValueError("one triplet is too few: the SVM needs at least two")
        difference = (queries - other).square() - (queries - preferred).square()  # phi(preferred) - phi(other), [T, D]
        difference = difference.double().cpu().numpy()
        length = np.linalg.norm(difference, axis=1).mean()
        if length == 0:
            raise ValueError("in every triplet both photos have the same distances to the sketch: nothing to learn")
        difference /= length
        share = self.prior / np.sqrt(difference.shape[1])
        samples = np.column_stack([difference, share * difference.sum(axis=1)])  # [T, D + 1]
        sign = np.where(np.arange(len(samples)) % 2, -1, 1)  # a triplet read backwards is an example of the other class
        svm = LinearSVC(C=self.c, loss="hinge", dual=True, fit_intercept=False, max_iter=self.max_iter,
                        random_state=self.seed)
        learned = svm.fit(samples * sign[:, None], sign).coef_[0]
        weight = learned[:-1] + share * learned[-1]
        self.weight = torch.from_numpy(weight).float().to(queries.device)
        return self

    def score(self, queries: Tensor, gallery: Tensor) -> Tensor:
        """-sum_d w_d (q_d - p_d)^2 of every pair, [Q, D], [G, D] -> [Q, G], without building [Q, G, D]."""
        if self.weight is None:
            raise RuntimeError("RankSVM has no weights yet: call fit(queries, preferred, other) with triplets first")
        if not queries.shape[-1] == gallery.shape[-1] == len(self.weight):
            raise ValueError(
                f"queries have {queries.shape[-1]} dimensions, the gallery {gallery.shape[-1]}, the weights "
                f"{len(self.weight)}: were they encoded by the same model?"
            )
        w = self.weight.to(queries)
        return 2 * (queries * w) @ gallery.T - (queries.square() @ w)[:, None] - (gallery.square() @ w)[None, :]
