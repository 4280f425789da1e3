"""Galleries larger than memory: features in shards on disk, searched one shard at a time; and in two stages.

A gallery is a folder of plain NumPy files, features in shards ("00000.npy", ...), "ids.npy" and "cams.npy", with one
"gallery.json": matcher, shape, dtype, count, digests of the labels, and for each shard its count, bytes and digest.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..models.matcher import Matcher
from .metrics import _host, labels_of
from .search import VectorIndex, _merge, eval_mode

MANIFEST, DTYPES = "gallery.json", ("float32", "float16")
SCORING = ("training", "chunk", "precision", "metric")
AGAIN = "call write_gallery with the same arguments again, it writes what is missing"


def fingerprint(matcher: Matcher | str) -> str:
    """Who made the features: the class and a digest of all weights, buffers and plain settings (numbers, words),
    "QAConv-1f0c3a5b9d2e"; a name as is. How a score is computed (``SCORING``) is no part of a feature."""
    if isinstance(matcher, str):
        return matcher
    state = matcher.state_dict().items()
    state = b"".join(name.encode() + value.detach().float().cpu().numpy().tobytes() for name, value in state)
    plain = [(path, type(part).__name__, name, value) for path, part in matcher.named_modules()
             for name, value in sorted(vars(part).items()) if name[0] != "_" and name not in SCORING
             and isinstance(value, bool | int | float | str | tuple)]  # fmt: skip
    return f"{type(matcher).__name__}-{_digest(state + repr(plain).encode())[:12]}"


def write_gallery(
    folder: str | Path, features: Callable | Tensor | np.ndarray, ids, cams=None, *, matcher: Matcher | str,
    dtype: str = "float32", shard: int = 4096, progress: bool = False,
) -> Gallery:
    """Write features [G, ...] in shards of ``shard`` images and open them; a write that was stopped goes on.

    features: all of them, or a function (start, stop) -> features [stop - start, ...] of these images:
    ``lambda a, b: encode(matcher, images[a:b])``. One shard of them must fit in memory.
    ids, cams: labels [G], numbers or text. matcher: who made the features; opening for another one is refused.
    dtype: "float32", or "float16" for half the bytes.

    Every file is written beside its place and then moved there, and a shard counts once the manifest names it: after a
    kill the same call ends with the same files. ValueError if the folder holds another gallery (other labels, matcher
    or sizes; or other features: of an array all are compared, of a function the first of every shard that is there), or
    features are not finite (in half precision: above 65,504).
    """
    folder, labels = Path(folder), {"ids": labels_of(ids)} | ({} if cams is None else {"cams": labels_of(cams)})
    count, given = len(labels["ids"]), {} if callable(features) else {"features": len(features)}
    if dtype not in DTYPES or shard < 1 or not count:
        raise ValueError(f"need dtype {' or '.join(DTYPES)}, shard >= 1 and an image; got {dtype!r}, {shard}, {count}")
    if set((given := given | {name: len(v) for name, v in labels.items()}).values()) != {count}:
        raise ValueError(f"features, ids and cams must be as many; got {given}")
    plan = {"matcher": fingerprint(matcher), "dtype": dtype, "count": count, "shard": shard,
            "labels": {name: _digest(v.tobytes()) for name, v in labels.items()}}  # fmt: skip
    manifest = _manifest(folder) if (folder / MANIFEST).exists() else {**plan, "shape": None, "shards": []}
    if other := [f"{n} {manifest[n]!r} there, {v!r} here" for n, v in plan.items() if manifest[n] != v]:
        raise ValueError(f"{folder / MANIFEST} is of another gallery ({'; '.join(other)}): take another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in labels.items():
        _place(folder / f"{name}.npy", lambda file, values=values: np.save(file, values, allow_pickle=False))
    for n, start in enumerate(tqdm(range(0, count, shard), folder.name, disable=not progress)):
        stop, path = min(start + shard, count), folder / f"{n:05d}.npy"
        if n < len(manifest["shards"]) and not _fault(path, manifest["shards"][n]):
            if not _holds(path, manifest["shards"][n], features, start, stop, dtype):
                raise ValueError(f"{path} holds other features than those given: take another folder, or delete this "
                                 "one and write it anew")  # fmt: skip
            continue
        given = _given(features, start, stop)
        manifest["shape"] = manifest["shape"] or list(given.shape[1:])
        wanted, block = [stop - start, *manifest["shape"]], given.to(getattr(torch, dtype)).numpy()
        if list(given.shape) != wanted or not np.isfinite(block).all():
            raise ValueError(f"features of images {start} to {stop - 1} must be {wanted} numbers, finite in {dtype}; "
                             f"got {list(given.shape)}")  # fmt: skip
        _place(path, lambda file, block=block: np.save(file, block))
        entry = {"count": len(block), "bytes": path.stat().st_size, "digest": _digest(np.memmap(path, mode="r"))}
        manifest["shards"][n : n + 1] = [entry]
        text = json.dumps({**manifest, "digest": _digest(json.dumps(manifest, sort_keys=True).encode())}, indent=1)
        _place(folder / MANIFEST, lambda file, text=text: file.write(text.encode()))
    return Gallery(folder)


class Gallery:
    """A gallery on disk, opened without loading it; ``ids`` and ``cams`` [G] (or None) are its labels.

    matcher: whose features these must be. ValueError if they are another's, if writing was stopped before its end, or
    if a file is missing or not as long as it was (:meth:`verify` reads them all).
    """

    def __init__(self, folder: str | Path, matcher: Matcher | str | None = None):
        self.folder, self.manifest, self._open = Path(folder), (m := _manifest(Path(folder))), {}
        self.shape, self.dtype, self.shards = tuple(m["shape"]), m["dtype"], m["shards"]
        if matcher is not None and (ours := fingerprint(matcher)) != m["matcher"]:
            raise ValueError(f"{self.folder / MANIFEST} holds features of {m['matcher']}, not of {ours}: load the "
                             "weights they were made with, or write them anew")  # fmt: skip
        faults = [_fault(self.folder / f"{n:05d}.npy", entry) for n, entry in enumerate(self.shards)]
        if (have := len(faults)) < (wanted := -(-m["count"] // m["shard"])):
            faults.append(f"{self.folder / MANIFEST} has {have} of {wanted} shards")
        if any(faults):
            raise ValueError(f"{next(filter(None, faults))}: {AGAIN}")
        self.ids, self.cams = (self._map(x, m["count"]) if x in m["labels"] else None for x in ("ids", "cams"))

    def __len__(self) -> int:
        return self.manifest["count"]

    def verify(self) -> None:
        """Read every file and compare it with its digest; ValueError names the first that was changed."""
        for name, values in (("ids", self.ids), ("cams", self.cams)):
            if values is not None and _digest(np.asarray(values).tobytes()) != self.manifest["labels"][name]:
                raise ValueError(f"{self.folder / name}.npy is not what was written: delete it, then {AGAIN}")
        for n, entry in enumerate(self.shards):
            if _digest(np.memmap(path := self.folder / f"{n:05d}.npy", mode="r")) != entry["digest"]:
                raise ValueError(f"{path} is not what was written: delete it, then {AGAIN}")

    def rows(self, numbers) -> Tensor:
        """Features [N, ...] in single precision of the gallery images ``numbers`` [N]; nothing else is read."""
        numbers, size = _host(numbers), self.manifest["shard"]
        if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
            raise ValueError(f"images are asked for by their numbers, a list of whole numbers; got {numbers.dtype} "
                             f"{numbers.shape} (of a mask take np.flatnonzero)")  # fmt: skip
        if not numbers.size:
            return torch.empty(0, *self.shape)
        if wrong := numbers[(numbers < 0) | (numbers >= len(self))].tolist():
            raise ValueError(f"{self.folder} has no image {wrong[0]}: its {len(self)} are numbered from 0")
        return torch.from_numpy(np.stack([self._shard(n // size)[n % size] for n in numbers])).float()

    @torch.inference_mode()
    def search(self, by: Matcher | str, queries, k: int = 10, *, chunk: int = 256, faiss: bool | None = None):
        """Queries [Q, ...] -> scores and gallery numbers [Q, k] of the best, best first, on the CPU.

        by: a metric of :class:`VectorIndex` ("euclidean", "cosine", "inner"; ``faiss``: see there), or a matcher whose
        ``score`` compares everything, ``chunk`` gallery images at a time. Of equally good images the first in the
        gallery comes first. A metric finds exactly what ``VectorIndex(all, by).search(queries, k)`` finds.
        """
        queries = self._checked(queries, k, len(self), "the gallery has")
        best = torch.empty(len(queries), 0, dtype=torch.float64), torch.empty(len(queries), 0, dtype=torch.long)
        for n in range(len(self.shards)):
            start = n * self.manifest["shard"]
            if isinstance(by, str):
                best = _merge(best, *self._nearest(n, by, queries.cpu(), best[0], k, faiss), k)
                continue
            for part in torch.arange(self.shards[n]["count"]).split(chunk):
                rows = torch.from_numpy(self._shard(n)[part[0] : part[-1] + 1])
                best = _merge(best, _score(by, queries, rows), (start + part).expand(len(queries), -1), k)
        return best[0].float(), best[1]

    @torch.inference_mode()
    def rescore(self, matcher: Matcher, queries, listed, k: int = 10, *, chunk: int = 256):
        """As :meth:`search`, but each query is compared only with its own list of gallery numbers ``listed`` [Q, S]."""
        listed, out = torch.as_tensor(listed).cpu(), []
        _distinct(listed.numpy(), "listed")
        queries = self._checked(queries, k, listed.shape[1], "the short list has")
        if len(listed) != len(queries):
            raise ValueError(f"{len(listed)} short lists for {len(queries)} queries: one for each is needed")
        for query, row in zip(queries.split(1), listed.sort(dim=1).values):  # equals in the order of the gallery
            scores = torch.cat([_score(matcher, query, self.rows(part)) for part in row.split(chunk)], dim=1)
            out.append(_merge((scores[:, :0], row[None, :0]), scores, row[None], k))
        return torch.cat([scores for scores, _ in out]).float(), torch.cat([numbers for _, numbers in out])

    def _nearest(self, n, metric, queries, best, k, faiss):
        """The k nearest of shard n; their scores in double precision, or -inf where k better ones are known."""
        index = self._open.get((n, metric, faiss)) or VectorIndex(self._shard(n), metric, faiss=faiss)
        if self.dtype == "float32" and metric != "cosine":  # its vectors are those on disk, no copy
            self._open[n, metric, faiss] = index
        rough, numbers = index.search(queries, k)
        enough = best[:, k - 1 :].float() if best.shape[1] == k else torch.tensor(-torch.inf)
        scores, queries = torch.full(rough.shape, -torch.inf, dtype=torch.float64), index._checked(queries, metric)
        for part in (rough >= enough).nonzero().split(max(1, index.BLOCK // queries.shape[1])):
            q, place = part.T
            scores[q, place] = index._scores(queries[q], index.vectors[numbers[q, place]])
        return scores, numbers + n * self.manifest["shard"]

    def _checked(self, queries, k, size, whose):
        queries = torch.as_tensor(queries)
        if not len(queries) or tuple(queries.shape[1:]) != self.shape:
            raise ValueError(f"queries are {list(queries.shape)}, features in {self.folder} "
                             f"{[len(self), *self.shape]}: encode both with the same matcher")  # fmt: skip
        if not 1 <= k <= size:
            raise ValueError(f"k = {k}, but {whose} {size} images ({self.folder}): ask for 1 to {size}")
        return queries.float()

    def _shard(self, n):
        if n not in self._open:
            self._open[n] = self._map(f"{n:05d}", self.shards[n]["count"], self.shape, self.dtype)
        return self._open[n]

    def _map(self, name, count, shape=(), dtype=None):
        """The array of a file, memory-mapped (copy on write, so that torch takes it without a warning)."""
        path = self.folder / f"{name}.npy"
        try:
            array = np.asarray(np.load(path, mmap_mode="c"))
            if array.shape != (count, *shape) or dtype not in (None, array.dtype):
                raise ValueError(f"it holds {array.dtype} {array.shape}, not {dtype or 'labels'} {(count, *shape)}")
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} is not what was written ({error}): delete it, then {AGAIN}") from error
        return array


def two_stage(
    vectors: Gallery, metric: str, queries, maps: Gallery, matcher: Matcher, map_queries, k: int = 10, *,
    shortlist: int = 100, faiss: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """Vectors choose ``shortlist`` images for each query, the matcher ranks these -> scores, gallery numbers [Q, k].

    vectors, maps: the same images, as vectors compared by ``metric``, and as what ``matcher`` scores; so the queries.
    """
    if shortlist < k:
        raise ValueError(f"a short list of {shortlist} cannot give the best {k}: make shortlist at least k")
    shortlist = min(shortlist, max(k, len(vectors)))  # a k above the gallery's size is refused below
    if vectors.manifest["labels"] != maps.manifest["labels"]:
        raise ValueError(f"{vectors.folder} and {maps.folder} hold different images (other ids or cams): "
                         "write both from the same list")  # fmt: skip
    return maps.rescore(matcher, map_queries, vectors.search(metric, queries, shortlist, faiss=faiss)[1], k)


def recall(listed, best) -> np.ndarray:
    """[S]: mean share of a query's ``best`` [Q, k] that is among the first 1, 2, ... S of its list ``listed`` [Q, S].

    With lists of a fast matcher, and the best of a slow one that scored everything: one minus what a list loses.
    """
    listed, best = _host(listed), _host(best)
    for name, rows in (("listed", listed), ("best", best)):
        _distinct(rows, name)
    found = [np.isin(row, wanted) for row, wanted in zip(listed, best, strict=True)]
    return np.cumsum(found, axis=1).mean(axis=0) / np.shape(best)[1]


def _distinct(rows: np.ndarray, name: str) -> None:
    if rows.ndim != 2 or (doubles := np.flatnonzero((np.diff(np.sort(rows, axis=1)) == 0).any(axis=1))).size:
        why = f"row {doubles[0]} names an image twice" if rows.ndim == 2 else f"got shape {rows.shape}"
        raise ValueError(f"{name} must be gallery numbers [Q, S], each once in a row; {why}")


def _given(features, start: int, stop: int) -> Tensor:
    return torch.as_tensor(features(start, stop) if callable(features) else features[start:stop]).detach().cpu()


def _holds(path: Path, entry: dict, features, start: int, stop: int, dtype: str) -> bool:
    """Whether a shard holds these features: all of an array; of a function the first, but for rounding."""
    if not callable(features):
        np.save(file := io.BytesIO(), _given(features, start, stop).to(getattr(torch, dtype)).numpy())
        return _digest(file.getbuffer()) == entry["digest"]
    there, here = np.load(path, mmap_mode="r")[0].astype(float), _given(features, start, start + 1)[0].double().numpy()
    return there.shape == here.shape and np.allclose(there, here, rtol=0.01, atol=0.01 * np.abs(there).max())


def _score(matcher, queries, rows):
    """Scores [Q, G] on the CPU, in eval mode and in double precision."""
    with eval_mode(matcher):
        scores = matcher.score(queries, rows.float().to(queries.device)).double().cpu()
    if scores.isnan().any():
        raise ValueError(f"{type(matcher).__name__} gave scores that are not a number: they cannot be ranked")
    return scores


def _manifest(folder: Path) -> dict:
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        if manifest.pop("digest") != _digest(json.dumps(manifest, sort_keys=True).encode()):
            raise ValueError("its digest does not fit: damaged, or edited")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / MANIFEST} cannot be read ({error}): give a folder that write_gallery has written, "
                         "or delete this one and write it anew") from error  # fmt: skip
    return manifest


def _digest(data) -> str:
    return hashlib.sha256(data).hexdigest()


def _fault(path: Path, entry: dict) -> str | None:
    """What is wrong with the file of a shard, as far as its length tells."""
    have = f"{path.stat().st_size} bytes" if path.is_file() else "missing"
    return None if have == f"{entry['bytes']} bytes" else f"{path} is {have}, not {entry['bytes']} bytes"


def _place(path: Path, write: Callable) -> None:
    """Write a file beside its place, then move it there: it is never half there."""
    part = path.with_name(f".{path.name}.part")
    try:
        with open(part, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
