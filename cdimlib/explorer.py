"""The explorer: ranked lists of two matchers side by side under two knobs, as HTML without kernel, network or library.

*A score taken apart.* A cosine is a sum over the cells of an image, QAConv's logit one over its local matches. Shown is
how much each part lies above its mean over the gallery: all parts of an image add up to (score - mean score).
"""

from __future__ import annotations

import base64
import io
import json
import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .data.benchmark import PHOTO, SKETCH, Benchmark, Split
from .data.toycameras import THINGS
from .data.toyshop import ToyShop
from .models.classical import DenseHOG
from .models.colour import CODES, ColourTexture, PairMetric
from .models.matcher import Matcher
from .models.midlevel import SketchFusion
from .models.qaconv import PooledMaps, QAConv
from .retrieval import encode, rank_metrics, similarity
from .training import save_atomically

_pack = lambda array, kind: base64.b64encode(np.ascontiguousarray(array, kind)).decode()  # noqa: E731
LIMIT, TOP, LINES = 5_000_000, 7, 7  # bytes of the output; length of a list; local matches of a pair
TAKEN = ("view", "phase", "shift", "zoom", "passer", "occluder", "side", "place", "light")  # how an image was taken


@dataclass(frozen=True)
class Entry:
    """A matcher of the explorer. name: as in a sentence ("the softmax vector"); prepare: uint8 images to its input, or
    None; how: a sentence on what it compares."""

    key: str
    name: str
    matcher: Matcher
    prepare: object = None
    how: str = ""


def located(entry: Entry, images: Tensor) -> tuple[Tensor, tuple[int, int]] | None:
    """Vectors by place, [N, cells (+ 1), D], that add up to unit vectors whose inner products rank as the matcher does,
    and the grid (h, w) of the cells, row by row. One more "cell" holds what has no place. None: not known how."""
    matcher, see = entry.matcher, lambda m: encode(m, images, entry.prepare)
    split = lambda flat, place: flat[:, None] * (place == torch.arange(int(place.max()) + 1)[:, None])  # noqa: E731
    if isinstance(matcher, PooledMaps):
        with torch.inference_mode():  # [N, d, h, w]; the vector is their mean
            maps = [matcher.eval().maps((entry.prepare or Tensor.float)(part)) for part in images.split(64)]
        cells, grid = torch.cat(maps).flatten(2).mT, maps[0].shape[2:]
    elif isinstance(matcher, ColourTexture | PairMetric):
        inner = getattr(matcher, "matcher", matcher)
        kinds, grid = (int(np.prod(inner.bins)), CODES), (inner.stripes, 1)
        place, flat = torch.cat([torch.arange(inner.stripes).repeat_interleave(n) for n in kinds]), see(inner)
        learned = inner is not matcher  # the metric is linear in the histograms [N, D], so every stripe has a vector
        cells = split(flat - matcher.mean, place) @ matcher.weight if learned else split(flat, place)
    elif isinstance(matcher, DenseHOG) and matcher.metric == "cosine":
        flat, grid = see(matcher), (matcher.cells - matcher.block + 1,) * 2
        cells = split(flat, torch.arange(grid[0] ** 2).repeat_interleave(flat.shape[1] // grid[0] ** 2))
    elif isinstance(matcher, SketchFusion) and len(matcher.taps) == 1 and matcher.pooling == "flatten":
        channels, *grid = matcher.net.shapes(matcher.net.input_size)[matcher.taps[0]]
        count, last = grid[0] * grid[1], matcher.net.fc7.out_features  # fc7, at the end, has no place
        cells = split(see(matcher), torch.cat([torch.arange(count).repeat(channels), torch.full((last,), count)]))
    else:
        return None
    return cells / cells.sum(1).norm(dim=1).clamp_min(1e-9)[:, None, None], (int(grid[0]), int(grid[1]))


def heat(query: Tensor, gallery: Tensor, chosen) -> np.ndarray:
    """Located vectors [cells, D] and [G, cells, D] -> [chosen, 2, cells]: what each cell of the query, and of a gallery
    image, adds to the score beyond its mean over the gallery."""
    whole, there = gallery.sum(1), gallery @ query.sum(0)  # [G, D], [G, cells]
    return torch.stack([(whole[chosen] - whole.mean(0)) @ query.T, there[chosen] - there.mean(0)], 1).numpy()


def local_matches(matcher: QAConv, query: Tensor, gallery: Tensor, chosen, top: int = LINES) -> np.ndarray:
    """Maps [d, h, w], [G, d, h, w] -> [chosen, top, 4]: query cell, gallery cell, cosine, and what the match adds to
    the logit beyond the mean over the gallery; largest first, found from both sides counts as one, then zeros."""
    cosines = torch.einsum("dp,gdr->gpr", query.flatten(1), gallery.flatten(2))  # [G, hw, hw]
    usual = torch.cat([cosines.amax(1), cosines.amax(2)], 1).mean(0)  # [2hw], in the order of correspondences
    out = np.zeros((len(chosen), top, 4))
    for row, g in zip(out, chosen, strict=True):
        found, ends = matcher.correspondences(query, gallery[g]), {}
        lift = found.weight * (found.similarity - usual)
        cells = [at[:, 0] * query.shape[2] + at[:, 1] for at in (found.query, found.gallery)]
        for a, b, s, v in zip(*(t.tolist() for t in (*cells, found.similarity, lift))):
            ends[a, b] = (a, b, s, v + ends.get((a, b), (0,))[-1])
        best = [e for e in sorted(ends.values(), key=lambda e: -e[-1])[:top] if e[-1] > 0]
        row[: len(best)] = np.reshape(best, (-1, 4))
    return out


def ranked(scores: np.ndarray, query: Split, gallery: Split, top: int = TOP) -> tuple[np.ndarray, np.ndarray]:
    """Scores [Q, G] -> gallery images [Q, top + 1], the best of all and, last, the best right one; its rank [Q]. As in
    :func:`cdimlib.retrieval.rank_metrics`, those of the query's own camera are left out, and ties go against us."""
    first = rank_metrics(scores, query.ids, gallery.ids, query.cams, gallery.cams).first_rank
    if not first.all():
        raise ValueError(f"query {first.argmin()} has no match in the gallery: leave it out")
    same = query.ids[:, None] == gallery.ids
    scores = np.where(same & (query.cams[:, None] == gallery.cams), -np.inf, scores)
    order = np.stack([np.lexsort((right, -row)) for right, row in zip(same, scores, strict=True)])
    return np.concatenate([order[:, :top], np.where(same, scores, -np.inf).argmax(1)[:, None]], 1), first


def sheet(pictures: Tensor, columns: int = 24) -> dict:
    """Pictures uint8 [N, 1 or 3, H, W] as one WebP, row by row."""
    n, _, h, w = pictures.shape
    page = torch.full((-(-n // columns) * columns, 3, h, w), 255, dtype=torch.uint8)
    page[:n] = pictures
    page = page.view(-1, columns, 3, h, w).permute(0, 3, 1, 4, 2).reshape(-1, columns * w, 3)  # [rows * H, ..., 3]
    Image.fromarray(page.numpy()).save(out := io.BytesIO(), "WEBP", quality=72, method=4)
    return {"columns": columns, "rows": len(page) // h, "size": [h, w], "image": _pack([*out.getvalue()], np.uint8)}


def scene(title: str, noun: str, knobs: dict, settings: list[Split], gallery: Split, entries: list[Entry], shown, *,
          pictures, words, start, twins=()) -> dict:  # fmt: skip
    """All that one tab shows, ready for JSON.

    noun: what is looked for ("this person"). knobs: name -> words of its levels; settings: the queries under all their
    combinations, the last knob turning fastest. shown: which can be picked; all count for rank-1. pictures: (of the
    shown queries, one tensor a setting; of the gallery); words: (of the shown, of the gallery), what each shows. start:
    keys of the two matchers to begin with, at the second level of all knobs, with the query of those shown for which
    1 / rank differs most. twins: (identity, identity, detail) of lookalikes. Matchers are moved to the CPU."""
    keys, levels, first, blocks = [e.key for e in entries], [len(v) for v in knobs.values()], {}, []
    if unknown := [key for key in start if key not in keys]:
        raise ValueError(f"unknown matcher {unknown[0]!r}: choose from {', '.join(keys)}")
    if len(settings) != np.prod(levels) or len(gallery) <= TOP:
        raise ValueError(f"{len(settings)} settings for {levels} levels, {len(gallery)} images for lists of {TOP}")
    for e in entries:
        e.matcher.eval().cpu()
        features, parts = encode(e.matcher, gallery.images, e.prepare), located(e, gallery.images)
        kind = "lines" if isinstance(e.matcher, QAConv) else "heat" if parts else "none"
        if kind == "lines" and features[0, 0].numel() > 256:
            raise ValueError(f"{e.key}: maps of {' x '.join(map(str, features.shape[2:]))} have more than the 256 "
                             "places that the explorer can name: use smaller images")
        lists, values, explained, first[e.key] = [], [], [], []
        for split in settings:
            asked = encode(e.matcher, split.images, e.prepare)
            scores = similarity(e.matcher, asked, features).numpy()
            order, rank = ranked(scores, split, gallery)
            first[e.key].append(rank.astype(int))
            lists.append(order[shown])
            values.append(np.take_along_axis(scores[shown], order[shown], 1))
            mine = located(e, split.images[torch.as_tensor(shown)])[0] if kind == "heat" else asked[shown]
            for q, best in zip(mine, order[shown], strict=True):
                explained.append(local_matches(e.matcher, q, features, best) if kind == "lines"
                                 else heat(q, parts[0], best) if parts else ())  # fmt: skip
        explained, grid = np.array(explained, float), parts[1] if parts else features.shape[2:]
        if parts:  # [C * N, TOP + 1, 2, cells]: bytes with a sign, shares of the pair's largest
            explained *= 127 / np.abs(explained).max((-2, -1), keepdims=True).clip(1e-9)
        elif kind == "lines":  # [C * N, TOP + 1, LINES, 4]: cells, cosine in percent, share of the pair's largest
            explained[..., 2:] *= 255 / np.maximum(explained[..., :1, 3:], 1e-9) * [0, 1] + [100, 0]
        stored = _pack(explained.round().clip(-127 if parts else 0), np.int8 if parts else np.uint8)
        blocks.append({"key": e.key, "name": e.name, "how": e.how, "kind": kind, "grid": [int(n) for n in grid],
                       "cells": explained.shape[-1] if parts else 0, "lists": _pack(lists, "<u2"), "parts": stored,
                       "ranks": _pack(first[e.key], "<u2"), "scores": _pack(values, "<f4")})  # fmt: skip
    begin = [min(1, n - 1) for n in levels]
    story = np.subtract(*(1 / first[key][np.ravel_multi_index(begin, levels)][shown] for key in start))
    return {"title": title, "noun": noun, "knobs": [{"name": k, "levels": list(v)} for k, v in knobs.items()],
            "matchers": blocks, "asked": len(settings[0]), "top": TOP, "lines": LINES, "shown": [int(i) for i in shown],
            "start": {"matchers": [keys.index(k) for k in start], "knobs": begin, "query": int(abs(story).argmax())},
            "queries": [{"id": int(settings[0].ids[i]), "words": w} for i, w in zip(shown, words[0], strict=True)],
            "gallery": [{"id": int(i), "words": w} for i, w in zip(gallery.ids, words[1], strict=True)],
            "twins": [[int(x), int(y), what] for x, y, what in twins],
            "sheet": sheet(torch.cat([*pictures[0], pictures[1]]))}  # fmt: skip


def town_scene(title: str, bench: Benchmark, entries: list[Entry], *, shown: int = 16, start, sharp: int = 2) -> dict:
    """A toy town. The queries are photographed again: what stands in the way, how badly the box is drawn; the gallery,
    one image of each visit to a camera, stays as the town took it. shown: the first so many people can be picked, each
    by the first camera that saw them. sharp: pictures have so many times the pixels that the matchers get."""
    town, query, shots, knobs = bench.meta["town"], bench.query, bench.meta["shots"], {
        "in the way": ("nothing", "a thing beside", "a thing in front", "somebody in front"),
        "the box": ("well drawn", "a little off", "off", "far off")}  # fmt: skip
    fine, rng = replace(town, pixels=tuple(sharp * side for side in town.pixels)), np.random.default_rng(town.seed)
    ways, things = rng.choice((-1.0, 1.0), (len(query), 2)), rng.choice([*THINGS], len(query))

    def photograph(town, part: str, keep, what=None, off=0) -> Tensor:
        told = {name: shots[part][name] for name in TAKEN}
        if what is not None:
            told |= dict(occluder=np.where(what < 3, things if what else "none", "passer-by"),
                         side=ways[:, 0] * (0, 0.22, 0.04, 0.1)[what], shift=ways * off * (0.06, 0.05),
                         zoom=np.exp(0.07 * off * ways.prod(1)))  # fmt: skip
        told = {name: np.broadcast_to(v, (len(shots[part]["cam"]), *np.shape(v)[1:]))[keep] for name, v in told.items()}
        return town.render(shots[part]["person"][keep], shots[part]["cam"][keep], **told)

    words = lambda shot, keep: [f"{town.person(p).describe()}; at the {town.place.cameras[c].name}"  # noqa: E731
                                for p, c in zip(shot["person"][keep], shot["cam"][keep])]  # fmt: skip
    combos, picks = [*product(range(4), repeat=2)], np.sort(np.unique(query.ids, return_index=True)[1][:shown])
    visits = np.unique([shots["gallery"]["person"], bench.gallery.cams], axis=1, return_index=True)[1]
    settings = [replace(query, images=photograph(town, "query", slice(None), *combo)) for combo in combos]
    pictures = [photograph(fine, "query", picks, *combo) for combo in combos], photograph(fine, "gallery", visits)
    return scene(title, "this person", knobs, settings, bench.gallery.where(visits), entries, picks, start=start,
                 pictures=pictures, words=(words(shots["query"], picks), words(shots["gallery"], visits)),
                 twins=bench.meta["lookalikes"])  # fmt: skip


def shop_scene(title: str, shop: ToyShop, category: str, entries: list[Entry], *, shown: int = 16, start) -> dict:
    """A toy shop: sketches, drawn again by other hands, ask for photos (edge maps)."""
    ids, numbers, noun = np.arange(shop.test), shop.numbers("test"), category.removesuffix("s")
    vectors, picks = shop.objects(category, numbers), ids[:shown]
    knobs = {"the hand": ("traced", "steady", "usual", "wild"), "left out": ("nothing", "little", "much", "most")}
    images = [replace(shop, distortion=d, dropped=p).render(category, vectors, SKETCH, numbers)
              for d, p in product((0.0, 0.5, 1.0, 1.6), (0.0, 0.15, 0.4, 0.7))]  # fmt: skip
    photos, words = shop.render(category, vectors, PHOTO, numbers), [f"{noun} {i + 1}" for i in ids]
    return scene(title, f"the photo of this {noun}", knobs, [Split(i, ids, ids * 0 + SKETCH) for i in images],
                 Split(photos, ids, ids * 0 + PHOTO), entries, picks, start=start, words=(words[: len(picks)], words),
                 pictures=([i[: len(picks)] for i in images], photos))  # fmt: skip


class Explorer:
    """Scenes, one per tab. Show it at the end of a cell, or :meth:`save` it as a page of its own. Raises ValueError if
    there is none, or if the output would have more than ``LIMIT`` bytes."""

    def __init__(self, *scenes: dict):
        self.scenes = scenes
        if not scenes or len(self.html.encode()) > LIMIT:
            raise ValueError(f"{len(scenes)} scenes: at least one is needed, and at most {LIMIT:,} bytes of output; "
                             "show fewer queries, or smaller pictures")  # fmt: skip

    @cached_property
    def html(self) -> str:
        css, js = (Path(__file__).with_suffix(end).read_text(encoding="utf8") for end in (".css", ".js"))
        plain = [s | {"sheet": {k: v for k, v in s["sheet"].items() if k != "image"}} for s in self.scenes]
        text = json.dumps(plain, separators=(",", ":")).replace("</", "<\\/")
        name = f"cdim-x-{zlib.crc32(text.encode()):08x}"
        for i, s in enumerate(self.scenes):
            css += f"#{name} .sheet{i}{{background-image:url(data:image/webp;base64,{s['sheet']['image']})}}"
        scripts = f'<script type="application/json">{text}</script><script>{js.replace("ID_OF_THIS", name)}</script>'
        css = f"<style>{css}</style><noscript>The explorer needs JavaScript.</noscript>"
        return f'<div class="cdim-x" id="{name}">{css}{scripts}</div>'

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return f"Explorer({', '.join(s['title'] for s in self.scenes)}: {len(self.html):,} bytes)"

    def save(self, path, title: str = "Explorer") -> Path:
        """Write a page that opens without a server."""
        head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
        style = "<style>:root{color-scheme:light dark}body{max-width:60em;margin:1em auto;padding:0 .8em}</style>"
        page = f"{head}{style}<body><main><h1>{title}</h1>{self.html}</main></body></html>"
        whole = f'<!doctype html><html lang="en">{page}'
        save_atomically(Path(path), lambda part: part.write_text(whole, encoding="utf8"))
        return Path(path)
