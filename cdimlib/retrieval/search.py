"""Encode once, score in chunks, rank."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.benchmark import Benchmark
from ..data.images import IMAGE_ENDINGS, read_image
from ..models.matcher import Matcher
from .metrics import RankMetrics, rank_metrics


@contextmanager
def eval_mode(matcher: Matcher):
    """Inside, the matcher is in eval mode: scores of training mode depend on the batch, and change the matcher."""
    was_training = matcher.training
    matcher.eval()
    try:
        yield
    finally:
        matcher.train(was_training)


@torch.inference_mode()
def encode(matcher: Matcher, images: Tensor, prepare=None, *, batch_size: int = 64) -> Tensor:
    """Features of uint8 images [N, C, H, W], in batches, in eval mode, on the matcher's device.

    prepare: uint8 batch -> float input of the matcher (default: convert to float). The mode the matcher was in is
    restored afterwards.
    """
    if len(images) == 0:
        raise ValueError("there are no images to encode")
    device = next((p.device for p in matcher.parameters()), torch.device("cpu"))
    prepare = prepare or (lambda batch: batch.float())
    with eval_mode(matcher):
        return torch.cat([matcher.encode(prepare(batch.to(device))) for batch in images.split(batch_size)])


@torch.inference_mode()
def similarity(matcher: Matcher, queries: Tensor, gallery: Tensor, *, chunk: int = 4096) -> Tensor:
    """Score every query against every gallery feature -> [Q, G] on the CPU, ``chunk`` gallery items at a time.

    They are scored where the queries are: a gallery may stay in the computer's memory beside queries on a GPU. The
    matcher scores in eval mode, and is left in the mode that it was in.
    """
    if len(queries) == 0 or len(gallery) == 0:
        raise ValueError(f"nothing to score: {len(queries)} queries, {len(gallery)} gallery images")
    scores = torch.empty(len(queries), len(gallery), dtype=torch.float32)
    with eval_mode(matcher):
        for part, out in zip(gallery.split(chunk), scores.split(chunk, dim=1)):
            given = matcher.score(queries, part.to(queries.device))
            if given.shape != out.shape:
                raise ValueError(f"{type(matcher).__name__}.score gave {list(given.shape)} for {len(queries)} queries "
                                 f"and {len(part)} gallery images: it must give one score a pair, {list(out.shape)}")
            out.copy_(given)
    return scores


def evaluate(
    matcher: Matcher, benchmark: Benchmark, prepare=None, *, batch_size: int = 64, average_precision="rectangle"
) -> RankMetrics:
    """Encode query and gallery of a benchmark, score, judge."""
    query, gallery = benchmark.query, benchmark.gallery
    if not len(query) or not len(gallery):
        raise ValueError(f"{benchmark.name!r} has {len(query)} queries and {len(gallery)} gallery images, so there is "
                         "nothing to evaluate: test on another set, or hold identities out by with_validation()")
    scores = similarity(
        matcher, encode(matcher, query.images, prepare, batch_size=batch_size),
        encode(matcher, gallery.images, prepare, batch_size=batch_size),
    )
    return rank_metrics(
        scores, query.ids, gallery.ids, query.cams, gallery.cams, average_precision=average_precision
    )


class VectorIndex:
    """The k best of a gallery of vectors [G, D] for each query, exactly, without the whole similarity matrix.

    metric and scores are :class:`VectorMatcher`'s ("euclidean": minus the distance; "cosine"), or the "inner" product.
    faiss: True, False, or None: if it is installed, where it pays: for one query in at least ``PAYS`` vectors, on one
    thread. Measured with 128 and 512 numbers (``make bench``; the table is on the page about galleries beyond memory):
    on one thread a single query is 1.2 to 1.9 times as fast with it in 10,000 vectors and 1.9 to 3 times in 100,000; on
    two threads it is not (0.7 to 0.9 times). For 4 queries at once FAISS is 0.9 to 1.4 times as fast on one thread and
    1.0 to 2.2 times on two; from 16 on mostly torch is, up to 4.5 times. Both read the same array. What they find is
    scored again in double precision, and more is found until rounding cannot have left out a better one, so they agree;
    of equally good images the one given first comes first. A query to which very many are nearly as good (a blank
    drawing, vectors far from the origin) is compared with all in double precision, which takes its time.
    """

    PAYS, SPARE, BLOCK, ROUNDS = 10_000, 8, 2**23, 4

    def __init__(self, vectors, metric: str = "euclidean", *, faiss: bool | None = None):
        if metric not in ("euclidean", "cosine", "inner"):
            raise ValueError(f"metric must be euclidean, cosine or inner, not {metric!r}")
        self.metric, self.vectors = metric, self._checked(vectors, metric)
        length = torch.linalg.vector_norm(self.vectors, dim=1)
        # q.g - |g|^2 / 2 orders as minus the distance does
        self.shift, self.longest = length.square() / 2 if metric == "euclidean" else length.new_zeros(()), length.max()
        possible = find_spec("faiss") is not None and self.vectors.device.type == "cpu"
        if faiss and not possible:
            raise ValueError("no FAISS here (pip install faiss-cpu), or vectors on a GPU: take faiss=None")
        self.faiss = faiss if possible else False

    @torch.inference_mode()
    def search(self, queries, k: int = 10) -> tuple[Tensor, Tensor]:
        """Queries [Q, D] -> the scores and the gallery indices [Q, min(k, G)] of the best, best first, on the CPU."""
        queries, (size, dimension) = self._checked(queries, self.metric).to(self.vectors.device), self.vectors.shape
        if k < 1 or queries.shape[1] != dimension:
            raise ValueError(f"k = {k} (at least 1?), queries {tuple(queries.shape)}, gallery {(size, dimension)}")
        by_faiss = self.faiss
        if by_faiss is None:
            by_faiss = len(queries) == 1 and size >= self.PAYS and torch.get_num_threads() == 1
        k, wanted = min(k, size), k + self.SPARE
        scores = queries.new_empty(len(queries), k)
        found, todo = scores.long(), torch.arange(len(queries), device=queries.device)
        for _ in range(self.ROUNDS):  # until everything left out is worse than place k
            step, left = max(1, self.BLOCK // max(size, min(wanted, size) * dimension)), []
            for part in todo.split(step):
                scores[part], found[part], settled = self._best(queries[part], k, wanted, by_faiss)
                left.append(part[~settled])
            todo, wanted = torch.cat(left), 2 * wanted
            if not len(todo):
                break
        for one in todo:
            scores[one], found[one] = self._all(queries[one], k)
        return scores.cpu(), found.cpu()

    def _best(self, queries, k, wanted, by_faiss):
        """Scores and numbers [Q, k] of the best of ``wanted`` candidates; whether none left out can be better [Q]."""
        euclidean, wanted = self.metric == "euclidean", min(wanted, len(self.vectors))
        length = torch.linalg.vector_norm(queries, dim=1)
        if by_faiss:
            import faiss

            metric = faiss.METRIC_L2 if euclidean else faiss.METRIC_INNER_PRODUCT
            nearest = faiss.knn(queries.numpy(), self.vectors.numpy(), wanted, metric=metric)
            rough, found = map(torch.from_numpy, nearest)
            rough = (length.square()[:, None] - rough) / 2 if euclidean else rough
        else:
            rough, found = (queries @ self.vectors.T).sub_(self.shift).topk(wanted, dim=1)
        found = found.sort(dim=1).values
        scores = self._scores(queries[:, None], self.vectors[found])  # of [Q, 1, D] and [Q, wanted, D]
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        least = scores[:, k - 1]
        least = (length.double().square() - least.square()) / 2 if euclidean else least
        terms = self.longest * (length + self.longest / 2 if euclidean else length)
        rounding = torch.finfo(torch.float32).eps * queries.shape[1] ** 0.5 * terms
        settled = (rough[:, -1] + rounding < least) | (wanted == len(self.vectors))
        return scores[:, :k].float(), found.gather(1, order[:, :k]), settled

    def _all(self, query, k):
        """Scores and numbers [k] of the best for a query [D], compared with everything in double precision."""
        best = query.new_empty(1, 0, dtype=torch.float64), query.new_empty(1, 0, dtype=torch.long)
        for part in torch.arange(len(self.vectors), device=query.device).split(max(1, self.BLOCK // len(query))):
            best = _merge(best, self._scores(query, self.vectors[part])[None], part[None], k)
        return best[0][0].float(), best[1][0]

    def _scores(self, queries, vectors):
        """In double precision, of [..., D] and [..., D] -> [...]."""
        queries, vectors = queries.double(), vectors.double()
        if self.metric == "euclidean":
            return -(queries - vectors).square().sum(-1).sqrt()
        return (queries * vectors).sum(-1)

    @staticmethod
    def _checked(vectors, metric):
        vectors = torch.as_tensor(vectors).detach().float().contiguous()
        if vectors.ndim != 2 or not vectors.numel() or not torch.isfinite(vectors).all():
            raise ValueError(f"vectors must be finite numbers [N, D], at least one; got shape {tuple(vectors.shape)}")
        return F.normalize(vectors, dim=1) if metric == "cosine" else vectors


def _merge(best, scores, numbers, k):
    """The k best of those known and of new ones, [Q, K] each; of equals the known, then the first, comes first."""
    scores, order = torch.cat([best[0], scores], dim=1).sort(dim=1, descending=True, stable=True)
    return scores[:, :k], torch.cat([best[1], numbers], dim=1).gather(1, order[:, :k])


@dataclass(frozen=True)
class Ranking:
    """Two folders ranked against each other: ``similarity`` [Q, G] with the paths and images of both sides."""

    similarity: np.ndarray
    query_paths: list[Path]
    gallery_paths: list[Path]
    query_images: Tensor
    gallery_images: Tensor

    def top(self, k: int = 5) -> dict[str, list[tuple[str, float]]]:
        """query file name -> its k best gallery file names with their scores, best first."""
        order = np.argsort(-self.similarity, axis=1, kind="stable")[:, :k]
        return {
            path.name: [(self.gallery_paths[g].name, float(self.similarity[q, g])) for g in order[q]]
            for q, path in enumerate(self.query_paths)
        }

    def show(self, k: int = 5, rows: int = 5):
        """A figure: one row per query, its k best gallery images beside it."""
        from .. import plots

        order = np.argsort(-self.similarity, axis=1, kind="stable")[:rows, :k]
        return plots.ranked_lists(
            self.query_images[:rows], [self.gallery_images[o] for o in order],
            query_names=[p.stem for p in self.query_paths[:rows]],
            gallery_names=[[self.gallery_paths[g].stem for g in o] for o in order],
            scores=[self.similarity[q, o] for q, o in enumerate(order)],
        )


def read_folder(
    folder: str | Path, *, size: int | tuple[int, int] = 256, channels: int = 1
) -> tuple[list[Path], Tensor]:
    """Every image of a folder, by name, on white, at one size ((H, W) or a square): paths and uint8 [N, C, H, W]."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder: give the folder that holds the images themselves")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_ENDINGS and not p.name.startswith("."))
    if not paths:
        raise FileNotFoundError(f"{folder} holds no image ({', '.join(IMAGE_ENDINGS)}): is it one level too high?")
    return paths, torch.stack([read_image(path, size, channels) for path in paths])


def rank_folders(queries: str | Path, gallery: str | Path, matcher: Matcher | None = None, prepare=None, **reading):
    """Rank the images of one folder against those of another, on a CPU -> :class:`Ranking`.

    matcher: any trained matcher with its ``prepare``; by default Dense-HOG, which needs no training.
    """
    if matcher is None:
        from ..models.classical import DenseHOG

        matcher = DenseHOG()
    query_paths, query_images = read_folder(queries, **reading)
    gallery_paths, gallery_images = read_folder(gallery, **reading)
    scores = similarity(
        matcher, encode(matcher, query_images, prepare), encode(matcher, gallery_images, prepare)
    )
    return Ranking(scores.numpy(), query_paths, gallery_paths, query_images, gallery_images)
