"""Experiments with people: a configuration becomes results (see :mod:`cdimlib.results`), one for each row of a table.

Two papers share this floor, since both learn a vector from identities: mid-level fusion and the Feature Mask Network.
One training can fill several rows: a Vanilla is also judged with its middle joined untrained, and a Feature Mask
Network by its global network, its local one, and both.
"""

from __future__ import annotations

import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn

from . import results
from .data import Benchmark, to_judge
from .distributed import encode, fit, once, resident_batches, settings, similarity, size
from .identities import identity_objective, mask_objective
from .models.fmn import GlobalPair, descriptor
from .models.matcher import VectorMatcher
from .people_runs import (  # noqa: F401
    FUSION,
    MASK,
    ROWS,
    TABLES,
    PersonRun,
    as_published,
    build,
    checkpoint_name,
    first_stage,
    taps_of,
)
from .retrieval.protocols import judge, multi_query
from .retrieval.reranking import k_reciprocal
from .training import History, TrainConfig, pick_device, seed_everything

ALPHAS = tuple(round(0.1 * i, 1) for i in range(11))


def train_person(
    run: PersonRun, bench: Benchmark, *, work: str | Path | None = None, progress: bool = True
) -> tuple[nn.Module, list[History]]:
    """Train one configuration on ``bench.train`` -> (model, history of each stage).

    work: folder of checkpoints to resume from; the global network's is shared by all runs with the same stage 1.
    """
    if run.compile and size() > 1:
        raise ValueError("compile=True is for one process: leave it out with several")
    device = pick_device()
    held = bench.with_validation(run.validation, seed=run.seed) if run.validation else bench
    batches, sampler = resident_batches(held.train, run.input, run.batch, identities=run.identities, device=device)
    seed_everything(run.seed)
    model = build(run, sampler.classes).to(device, memory_format=torch.channels_last)
    per_epoch, histories = len(held.train) / run.batch, []

    def validate(net) -> float:
        seen = [(encode(net, s.images, run.input), s.ids, s.cams) for s in (held.query, held.gallery)]
        return judge(net, *seen)["mAP"]

    def stage(net, objective, epochs, period, name, scales, seed=run.seed) -> None:
        steps = max(1, round(epochs * per_epoch))
        config = TrainConfig(
            steps, run.lr, run.optimizer, run.weight_decay, run.schedule, decay=run.decay, seed=seed,
            period=max(1, round(period * per_epoch)), lr_scale=tuple(scale for scale in scales if scale[1] != 1),
            evaluate_every=max(1, steps // run.evaluations), precision=run.precision,
        )
        if run.compile:
            net.logits = torch.compile(net.logits)
        histories.append(fit(
            net, batches, objective, config, validate=validate if run.validation else None,
            checkpoint=Path(work) / f"{name}.pt" if work else None, progress=progress, label=name,
        ))

    data = held.train.digest
    name = f"{checkpoint_name(run)}-{data}"
    def train_global(net, seed) -> None:
        first = checkpoint_name(replace(first_stage(run), seed=seed))
        stage(net, identity_objective(run.smoothing), run.epochs, run.period, f"grn-{first}-{data}",
              (("backbone", run.backbone_lr),), seed)

    if run.masked:
        train_global(model.grn, run.seed)
        if run.row == "two-grn":
            seed_everything(run.seed + 1)
            other = build(run, sampler.classes).grn.to(device, memory_format=torch.channels_last)
            train_global(other, run.seed + 1)
            return GlobalPair(model.grn, other, run.alpha), histories
        model.freeze_global()
        stage(model, mask_objective(run.margin, run.rank_weight, run.smoothing), run.mask_epochs or run.epochs,
              run.mask_period or run.period, name, (("lan.backbone", run.backbone_lr), ("mask", run.mask_lr)))
    else:
        stage(model, identity_objective(run.smoothing), run.epochs, run.period, name, (("backbone", run.backbone_lr),))
    return model, histories


def several(queries, gallery) -> tuple:
    """Those that may ask together, (features, ids, cams): every test image of a query's person and camera.

    The rule that leaves a query's own camera out of its ranking makes those of the gallery free to ask.
    """
    asked = set(zip(queries[1], queries[2]))
    free = np.array([pair in asked for pair in zip(gallery[1], gallery[2])])
    features = torch.cat([queries[0], gallery[0][torch.as_tensor(free, device=gallery[0].device)]])
    return features, *(np.concatenate([queries[i], gallery[i][free]]) for i in (1, 2))


def judge_rows(run: PersonRun, model: nn.Module, bench: Benchmark) -> dict[str, dict]:
    """row -> metrics by data set: its name (single query) and "<name> multi-query".

    Those who ask together are ``bench.meta["multi_query"]`` if there is one (Market-1501's list), else :func:`several`.
    Of a joined feature also what its parts score, by cosine: "<name> middle", "<name> end" (the last map), and
    "<name> even", both brought to unit length. A mask network's own row holds, under "alpha", what every share of the
    global network would score.
    """
    splits, plain, cosine, out = [bench.query, bench.gallery], VectorMatcher(), VectorMatcher("cosine"), {}
    splits += [bench.meta["multi_query"]] if "multi_query" in bench.meta else []
    look = lambda m: [(encode(m, s.images, run.input).float(), s.ids, s.cams) for s in splits]  # noqa: E731
    mix = lambda seen, alpha: [(descriptor(*f.chunk(2, dim=1), alpha), *labels) for f, *labels in seen]  # noqa: E731
    if run.masked:
        model.alpha = 0.5  # both halves are there; other shares follow from it
        both, model.alpha = look(model), run.alpha
        local = run.row.replace("fmn", "lan") if run.row.startswith("fmn") else f"lan-{run.row}"
        shares = {"grn": 1.0, local: 0.0, run.row: run.alpha}
        views = {row: mix(both, alpha) for row, alpha in shares.items()}
    else:
        nets = {run.row: model}
        if run.row == "vanilla":
            nets["vanilla+fusion"] = model.join(taps_of("fusion", model.backbone))
        views = {row: look(net) for row, net in nets.items()}
    for row, (queries, gallery, *more) in views.items():
        together = multi_query(*(more[0] if more else several(queries, gallery)))
        together = judge(cosine, together, gallery)
        out[row] = {bench.name: judge(plain, queries, gallery), f"{bench.name} multi-query": together}
        if not run.masked and nets[row].taps:
            halves = [features.split(nets[row].dimensions, dim=1) for features in (queries[0], gallery[0])]
            even = [torch.cat([F.normalize(part) for part in parts], dim=1) for parts in halves]
            for word, q, g in (("middle", *(h[0] for h in halves)), ("end", *(h[1] for h in halves)), ("even", *even)):
                out[row][f"{bench.name} {word}"] = judge(cosine, (q, *queries[1:]), (g, *gallery[1:]))
        if run.rerank:
            pairs = ((queries, gallery), (queries, queries), (gallery, gallery))
            distance = once(k_reciprocal)(*(-similarity(plain, a[0], b[0]) for a, b in pairs), squared=True)
            out[f"{row}+rerank"] = {bench.name: judge(-distance, queries, gallery)}
    if run.masked:
        swept = {str(a): judge(plain, *mix(both[:2], a)) for a in ALPHAS}
        out[run.row][bench.name]["alpha"] = {a: {m: round(j[m], 3) for m in ("acc@1", "mAP")} for a, j in swept.items()}
    return out


def run_person(
    run: PersonRun, *, bench: Benchmark | None = None, root=None, work: str | Path | None = None, progress: bool = True
) -> tuple[list[dict], nn.Module]:
    """Train and test one configuration -> (a result for each row it fills, trained model).

    bench: a benchmark to use instead of ``load(run.benchmark, root, pixels=run.pixels)``.
    work: folder of checkpoints (see :func:`train_person`).
    The test split is looked at once, with the last weights, or with those chosen on held-out training identities.
    """
    started, device = time.perf_counter(), pick_device()
    bench = bench or run.load(run.benchmark, root)
    bench = bench.with_people(run.people) if run.people else bench
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    others = [run.load(words, root) for words in run.also]  # what is not there is missed before the training
    places = to_judge([bench, *others])
    model, histories = train_person(run, bench, work=work, progress=progress)
    rows, last = {}, histories[-1]
    for place in places:
        for row, metrics in judge_rows(run, model, place).items():
            rows.setdefault(row, {}).update(metrics)
    data, net = (sum(getattr(h, name) for h in histories) for name in ("data_seconds", "model_seconds"))
    common = {
        **run.stub,
        "data": {"name": bench.name, "note": bench.note, "train_images": len(bench.train),
                 "train_identities": len(np.unique(bench.train.ids)), "test_queries": len(bench.query),
                 "gallery_images": len(bench.gallery)},
        "protocol": "every query against the gallery, the query's own camera left out",
        "multi_query": "the data set's own list" if "multi_query" in bench.meta else "test images of a query's camera",
        "average_precision": "rectangle", "parameters": sum(p.numel() for p in model.parameters()),
        "curve": {"loss": [[round(v, 4) for v in h.losses[:: max(1, len(h.losses) // 100)]] for h in histories],
                  "validation": last.validation, "best_step": last.best_step},
        **settings(run.batch), "data_seconds": round(data, 1), "model_seconds": round(net, 1),
        "train_images_per_second": round(run.batch * sum(len(h.losses) for h in histories) / (data + net), 1),
        "peak_memory_mib": round(results.peak_memory(device) or 0) or None,
        "wall_seconds": round(time.perf_counter() - started + sum(h.earlier for h in histories), 1),
        **results.machine(device, run.precision),
    }
    return [{**common, "row": row, "budget": run.budget(1 if row.startswith("grn") else 2), "metrics": metrics}
            for row, metrics in rows.items()], model


def run_grid(runs: list[PersonRun], *, root=None, folder=None, work=None, progress: bool = True) -> list[dict]:
    """Every run that has no result yet, in order; results are written as they come, so a stopped grid resumes.

    work: folder for checkpoints; a run's own is deleted when it is done, a global network's stays for others.
    """
    def execute(run):
        if run.masked and (global_row := shared_row(run, folder)):
            raise ValueError(f"{global_row} is of a global network that was trained otherwise: give the run a label of "
                             "its own")
        return run_person(run, root=root, work=work, progress=progress)[0]

    return results.run_missing(runs, execute, leftovers=lambda run: f"{checkpoint_name(run)}-*", folder=folder,
                               work=work)


def shared_row(run: PersonRun, folder=None) -> Path | None:
    """The stored result of a mask network's global branch that this run would overwrite with that of another one."""
    path = results.path_of({**run.stub, "row": "grn", "budget": run.budget(1)}, folder)
    if not path.exists():
        return None
    known = {field.name for field in fields(PersonRun)}
    stored = {name: value for name, value in results.read(path)["config"].items() if name in known}
    return None if first_stage(PersonRun(**stored)) == first_stage(run) else path


def beside(paper: str, table: int, found: list[dict], benchmark: str, *, first: bool = False) -> pd.DataFrame:
    """The rows of a printed table that are ours, beside results on a benchmark: rank-1 and mAP, mean ± spread (seeds).

    found: results, of one budget; of a table with several data sets the benchmark's own is shown. A toy town has none
    and stands beside all of them: a stand-in, whose numbers say something about each other and not about the paper's.
    first: begin with colours and textures (:func:`cdimlib.results.first_row`), from images of 128 x 64.
    """
    printed, rows, lines = results.paper_table(paper, table), TABLES[paper, table], []
    if first and (classical := results.first_row(benchmark)):
        line = {"paper's data": None, "protocol": "single query", "method": "colour and texture, learned metric",
                "our row": "colour-texture-metric"}  # fmt: skip
        for metric in ("acc@1", "mAP"):
            line |= {f"paper {metric}": None, f"ours {metric}": results.cell(classical, benchmark, metric)}
        lines.append(line)
    printed = printed[(printed["dataset"] == benchmark) | (benchmark not in set(printed["dataset"]))]
    for (data, protocol, method), part in printed.groupby(["dataset", "protocol", "method"], sort=False):
        if method in rows:
            mine = [r for r in found if r["row"] == rows[method]]
            words = f"{benchmark} multi-query" if protocol == "multi query" else benchmark
            values = part.set_index("metric")["value"]
            cells = {m: (values.get(m), results.cell(mine, words, m)) for m in ("acc@1", "mAP")}
            lines.append({"paper's data": data, "protocol": protocol, "method": method, "our row": rows[method]}
                         | {f"{who} {m}": cells[m][i] for m in cells for i, who in enumerate(("paper", "ours"))})
    return pd.DataFrame(lines)
