"""What time adds where people really were: the names of a set's images say who was seen by which camera, and when. The
features are *simulated*; no image is looked at. A table holds "id", "cam" and "time" (seconds) of every image.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from . import results
from .data.people import market_seconds, parse
from .retrieval import k_reciprocal, rank_metrics, temporal_lift

PAUSE = 60.0  # seconds without an image of a person by a camera, after which another visit begins


def market_table(names: str | Path) -> pd.DataFrame:
    """Market-1501, from a folder of images or a text file with a name first on each line; "doubled": official clock."""
    path = Path(names)
    written = [] if path.is_dir() else filter(str.strip, path.read_text().splitlines())
    lines = path.iterdir() if path.is_dir() else (line.split()[0] for line in written)
    table = parse("market1501", sorted(map(str, lines))).query("id >= 0")  # no junk
    each = (table.cam, table.session, table.frame)
    table = table.assign(time=market_seconds(*each), doubled=market_seconds(*each, official_offsets=True))
    return table.loc[table.id > 0, ["id", "cam", "time", "doubled"]].reset_index(drop=True)


def visits(table: pd.DataFrame) -> np.ndarray:
    """int [N]: images of one person by one camera without a pause of a minute are one visit."""
    ordered = table.sort_values(["id", "cam", "time"])
    change = ordered[["id", "cam"]].diff().ne(0).any(axis=1) | (ordered.time.diff() > PAUSE)
    return change.cumsum().reindex(table.index).to_numpy() - 1


def shuffle_visits(table: pd.DataFrame, seed: int = 0) -> np.ndarray:
    """Times [N] where each visit starts when another one to its camera did: bursts stay, company is lost."""
    visit, rng = visits(table), np.random.default_rng(seed)
    first = table.groupby(visit)[["cam", "time"]].min()
    moved = first.groupby("cam").time.transform(rng.permutation) - first.time
    return (table.time + moved.to_numpy()[visit]).to_numpy()


def company(table: pd.DataFrame, near: float, apart: float) -> tuple[float, float]:
    """How often two people seen within ``near`` seconds by one camera come within ``apart`` at another that saw both,
    and how often any two people do that it saw: shares of all (pair, camera, other camera), (pair, camera)."""
    who = np.unique(table.id, return_inverse=True)[1]
    first = table.assign(who=who).groupby(visits(table))[["who", "cam", "time"]].min()
    gaps = {}  # camera -> seconds between the nearest visits of each pair, inf where it did not see both
    for cam, seen in first.groupby("cam"):
        gap, at, i = np.full((who.max() + 1,) * 2, np.inf), seen.time.to_numpy(), seen.who.to_numpy()
        np.minimum.at(gap, (i[:, None], i), np.abs(at[:, None] - at))
        gaps[cam] = gap[np.triu_indices(len(gap), 1)]
    there = [gaps[b][(gaps[a] < near) & np.isfinite(gaps[b])] < apart for a in gaps for b in gaps if a != b]
    anywhere = [gap[np.isfinite(gap)] < apart for gap in gaps.values()]
    return tuple(float(np.concatenate(cases).mean()) if sum(map(len, cases)) else 0.0 for cases in (there, anywhere))


def simulate(table: pd.DataFrame, noise: float, seed: int, *, dims: int = 128, shared: float = 0.5) -> Tensor:
    """Features [N, dims] of unit length: a Gaussian vector per identity plus ``noise`` times another one, of whose
    variance the share ``shared`` is common to the images of a visit, as light and viewpoint are."""
    rng, visit = np.random.default_rng([seed, 7]), visits(table)
    identity = np.unique(table.id, return_inverse=True)[1]
    draw = lambda count: rng.standard_normal((count, dims), np.float32)  # noqa: E731
    common, own = draw(visit.max() + 1)[visit] * shared**0.5, draw(len(table)) * (1 - shared) ** 0.5
    features = draw(identity.max() + 1)[identity] + noise * (common + own)
    return F.normalize(torch.from_numpy(features.astype(np.float32)), dim=1)


def queries(table: pd.DataFrame, seed: int) -> np.ndarray:
    """bool [N]: one random image of every person and camera asks, as in Market-1501's test set."""
    return table.index.isin(table.sample(frac=1, random_state=seed).drop_duplicates(["id", "cam"]).index)


def judge(scores, table: pd.DataFrame, asked: np.ndarray) -> dict:
    """acc@1, acc@10, mAP (rectangle) in percent and first_rank (101 for all beyond 100), by the cross-camera rule."""
    ids, cams = table.id.to_numpy(), table.cam.to_numpy()
    found = rank_metrics(scores, ids[asked], ids[~asked], cams[asked], cams[~asked])
    return found.percent(1, 10) | {"first_rank": found.first_rank.clip(max=101).tolist()}


def calibrate(table: pd.DataFrame, level: float, seed: int = 1000, pairs: int = 400_000) -> tuple[float, float, float]:
    """(noise, a, b), from simulated features of its own: the noise at which appearance alone has rank-1 = ``level``
    percent, and the numbers that make sigmoid(a cosine + b) the probability of one identity."""
    asked, low, high, rng = queries(table, seed), 0.1, 6.0, np.random.default_rng(seed)
    for _ in range(10):
        noise = (low + high) / 2
        f = simulate(table, noise, seed)
        low, high = (noise, high) if judge(f[asked] @ f[~asked].T, table, asked)["acc@1"] > level else (low, noise)
    i, j = rng.integers(len(table), size=(2, pairs))
    other, same = (table[c].to_numpy()[i] == table[c].to_numpy()[j] for c in ("cam", "id"))
    cosines = (f[i] * f[j]).sum(dim=1)[:, None].numpy()
    fit = LogisticRegression(C=1e4).fit(cosines[~other], same[~other])
    return noise, float(fit.coef_[0, 0]), float(fit.intercept_[0])


def run(table: pd.DataFrame, data: str, level: float, seed: int, variants: dict) -> dict:
    """All variants on one simulated draw -> a result as :mod:`cdimlib.results` keeps it, with a metric per variant.

    variants: name -> (scores, clock, options of temporal_lift, afterwards). Scores are "cosine", "probability", "other
    cameras" (0 for the query's own) or "re-ranked"; the clock is a column of the table, "visits" (shuffled), or "" for
    no lifting; afterwards is "re-rank" or "".
    """
    began, (noise, a, b) = time.perf_counter(), calibrate(table, level)
    asked, features = queries(table, seed), simulate(table, noise, seed)
    table = table.assign(visits=shuffle_visits(table, seed))
    q, g = features[asked], features[~asked]
    cosines = [x @ y.T for x, y in ((q, g), (q, q), (g, g))]
    likely = [torch.sigmoid(a * c + b) for c in cosines]
    reranked = 1 - k_reciprocal(*((1 - c).clamp(min=0) for c in cosines))
    cams, metrics = table.cam.to_numpy(), {}
    own = torch.from_numpy(cams[asked][:, None] == cams[~asked])
    known = {"cosine": (1 + cosines[0]) / 2, "probability": likely[0], "re-ranked": reranked,
             "other cameras": likely[0].masked_fill(own, 0)}
    for name, (kind, clock, options, afterwards) in tqdm(variants.items(), desc=f"rank-1 {level:g} %, seed {seed}"):
        scores = known[kind]
        if clock:
            now = table[clock].to_numpy()
            scores = temporal_lift(scores, cams[asked], now[asked], cams[~asked], now[~asked], **options)
        if afterwards:
            scores = -k_reciprocal(1 - scores, 1 - likely[1], 1 - likely[2])
        metrics[name] = judge(scores, table, asked)
    facts = {"name": data, "images": len(table), "identities": table.id.nunique(), "cameras": table.cam.nunique(),
             "queries": int(asked.sum()), "features": "simulated"}
    config = {"level": level, "noise": noise, "slope": a, "offset": b, "dims": 128, "shared": 0.5, "variants": variants}
    return {"paper": "time", "row": "simulated", "track": f"rank{level:g}", "seed": seed, "config": config,
            "data": facts, "metrics": metrics, "wall_seconds": time.perf_counter() - began, **results.machine()}
