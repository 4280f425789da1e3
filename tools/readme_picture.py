"""The README's picture, _static/readme.png: a sketch asks a toy shop, a toy person asks a toy town.

Nothing in it is trained: the shop is searched by gradient histograms, the town by local matches of colours, with the
score that QAConv begins with. ``python tools/readme_picture.py`` draws it again.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.patches import ConnectionPatch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from cdimlib import plots  # noqa: E402
from cdimlib.data import load  # noqa: E402
from cdimlib.models.classical import DenseHOG  # noqa: E402
from cdimlib.models.qaconv import QAConv  # noqa: E402
from cdimlib.retrieval import encode, similarity  # noqa: E402

CELLS, SHOWN, LINES, COLOURS = (32, 16), 6, 9, 128


def colours(images: torch.Tensor) -> torch.Tensor:
    """uint8 [N, 3, H, W] -> unit vectors [N, 27, 32, 16]: the colours of 3 x 3 cells around each, the backdrop's
    (the image's corner) taken off."""
    images = F.adaptive_avg_pool2d(images.float() / 255, CELLS)
    return F.normalize(F.unfold(images - images[:, :, :1, :1], 3, padding=1).unflatten(2, CELLS) + 1e-4, dim=1)


def search_shop():
    """Benchmark, similarity [Q, G], the query to show."""
    shop, hog = load("toy-shop/shoes", size="demo"), DenseHOG(blur=4 / 128)
    scores = similarity(hog, encode(hog, shop.query.images), encode(hog, shop.gallery.images))
    return shop, scores, choose(shop, scores)


def choose(benchmark, scores) -> int:
    """The first query that is answered right at once and has a wrong answer or more among those shown."""
    order = np.argsort(-np.asarray(scores), axis=1, kind="stable")[:, :SHOWN]
    right = benchmark.gallery.ids[order] == benchmark.query.ids[:, None]
    matches = (benchmark.gallery.ids == benchmark.query.ids[:, None]).sum(axis=1).clip(max=4)
    return int(np.flatnonzero(right[:, 0] & ~right.all(axis=1) & (right.sum(axis=1) >= matches.clip(max=3)))[0])


def search_town():
    """The same for people, with the maps of all queries and gallery images, and the matcher."""
    town = load("toytown-plaza", size="tiny", pixels=(256, 128), background=0, occlusion=0, blur=0, noise=0)
    matcher = QAConv((512, 256), channels=27).eval()
    queries, gallery = colours(town.query.images), colours(town.gallery.images)
    scores = matcher.logits(queries, gallery)
    scores[torch.as_tensor(town.query.cams[:, None] == town.gallery.cams)] = -torch.inf  # seen by another camera
    return town, scores, choose(town, scores), queries, gallery, matcher


def row(axes, benchmark, scores, query: int) -> np.ndarray:
    """A query and the best of the gallery, ticked and framed; returns the numbers of those."""
    best = np.argsort(-np.asarray(scores[query]), kind="stable")[: len(axes) - 1]
    plots._show(axes[0], benchmark.query.images[query], "query", frame="0.3", width=1.5)
    for rank, (place, number) in enumerate(zip(axes[1:], best, strict=True), start=1):
        right = benchmark.gallery.ids[number] == benchmark.query.ids[query]
        title, frame = f"{rank} {'✓' if right else '✗'}", plots.RIGHT if right else plots.WRONG
        plots._show(place, benchmark.gallery.images[number], title, frame)
    return best


def lines(figure, axes, images, found) -> None:
    """The surest local matches of two people as lines between cells of the people, not too near each other."""
    colour = F.adaptive_avg_pool2d(torch.stack(images).float(), CELLS)
    person = (colour - colour[:, :, :1, :1]).norm(dim=1) > 60  # [2, 32, 16]: not the backdrop
    (height, width), taken = images[0].shape[1:], []
    for i in torch.argsort(found.similarity, descending=True).tolist():
        here, there = found.query[i], found.gallery[i]
        fresh = all((here - t).abs().max() > 3 for t in taken)
        if len(taken) < LINES and fresh and person[0, here[0], here[1]] and person[1, there[0], there[1]]:
            taken.append(here)
            ends = [((c + 0.5) * width / CELLS[1], (r + 0.5) * height / CELLS[0]) for r, c in (here, there)]
            figure.add_artist(ConnectionPatch(*ends, "data", "data", axesA=axes[0], axesB=axes[1], color="#de8f05",
                                              linewidth=1.8, arrowstyle="-", zorder=5))  # fmt: skip


def draw():
    plots.style()
    figure, axes = plt.subplots(2, SHOWN + 1, figsize=(8.6, 4.0), gridspec_kw={"height_ratios": [1, 1.9]})
    row(axes[0], *search_shop())
    town, scores, query, queries, gallery, matcher = search_town()
    best = row(axes[1], town, scores, query)
    pair = [town.query.images[query], town.gallery.images[best[0]]]
    lines(figure, axes[1, :2], pair, matcher.correspondences(queries[query], gallery[best[0]]))
    return figure


def main() -> None:
    matplotlib.use("agg")
    buffer = io.BytesIO()
    draw().savefig(buffer, dpi=140)
    picture = Image.open(buffer).convert("RGB").quantize(COLOURS)
    path = ROOT / "_static" / "readme.png"
    picture.save(path, optimize=True)
    print(f"{path}: {picture.size[0]} x {picture.size[1]}, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
