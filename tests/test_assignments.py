"""Coursework: the generated notebooks are up to date, solutions score full, stubs score 0 without a crash, and typical
wrong answers lose exactly the points they should, with a message that says what is wrong. No grader is needed.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import warnings

import assignments
import matplotlib.pyplot as plt
import nbformat
import pytest

NAMES = [p.stem for p in sorted((assignments.ROOT / assignments.FOLDER / "source").glob("*.ipynb"))]


@functools.cache
def pieces(name: str) -> list[assignments.Piece]:
    return assignments.read(assignments.ROOT / assignments.FOLDER / "source" / f"{name}.ipynb")


def runnable(source: str) -> str:
    """The first cell without its line for notebooks."""
    return "import cdimlib; device = cdimlib.start()" if "%pip" in source else source


@functools.cache
def solved(name: str) -> dict:
    """Everything that the solved notebook binds."""
    env = {}
    for piece in pieces(name):
        if piece.kind in ("code", "answer") and piece.cell.cell_type == "code":
            exec(assignments.solved(runnable(piece.cell.source)), env)
    plt.close("all")
    return env


def answered(name: str, question: str, answer: str) -> tuple[list[assignments.Piece], dict]:
    """What stands from one question on, and what a notebook binds that answers it by this code, all others rightly.

    Answers behind it are given again, so that they call it if they call it at all; what stands before it cannot change.
    """
    first = next(i for i, p in enumerate(pieces(name)) if p.kind == "answer" and p.name == question)
    env, behind = dict(solved(name)), pieces(name)[first:]
    for piece in behind:
        if piece.kind == "answer" and piece.cell.cell_type == "code":
            right = assignments.solved(piece.cell.source)
            for bound in assignments.bound(right):
                env.pop(bound, None)
            with contextlib.suppress(Exception):  # as a grader does, which goes on behind a cell that fails
                exec(answer if piece.name == question else right, env)
    return behind, env


def grade(name: str, question: str, answer: str) -> dict[str, tuple[float, float, str]]:
    """test -> (points earned, points, message) for a notebook with this answer."""
    return judge(*answered(name, question, answer))


def judge(tests, env: dict) -> dict[str, tuple[float, float, str]]:
    """Tests, visible and hidden, on what a notebook has bound."""
    found = {}
    for piece in tests:
        if piece.kind == "test":
            scope, message = {}, ""
            exec(piece.cell.source, scope)  # as a grader runs it: it sees its own imports and its arguments only
            test = scope[piece.name]
            try:
                test(*(env.get(parameter) for parameter in inspect.signature(test).parameters))
            except Exception as error:
                message = str(error) or type(error).__name__
            found[piece.name] = (0 if message else piece.points, piece.points, message)
    return found


def test_generated_files_are_up_to_date():
    assert assignments.stale() == []


def run(path) -> dict:
    """A generated notebook from top to bottom, as its reader runs it: what it binds. A warning is an error."""
    env = {}
    with warnings.catch_warnings(action="error"):  # nbgrader takes what is written to standard error for a failure
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code":
                exec(runnable(cell.source), env)
    plt.close("all")
    return env


@pytest.mark.parametrize("name", NAMES)
def test_the_solution_scores_full(name, root, capsys):
    earned = run(root / assignments.FOLDER / "solutions" / f"{name}.ipynb")["earned"]  # its last cell asserts the total
    assert earned == {p.name: p.points for p in pieces(name) if p.kind == "test"}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", NAMES)
def test_stubs_score_nothing_and_do_not_crash(name, root, capsys):
    """Not a point for a notebook handed in as it was given out, neither by its own checks nor by the hidden ones."""
    env = run(root / assignments.FOLDER / f"{name}.ipynb")
    visible = [p.name for p in pieces(name) if p.kind == "test" and not p.hidden]
    assert env["earned"] == dict.fromkeys(visible, 0)
    assert capsys.readouterr().err.count("not yet") == len(visible)
    assert not any(earned for earned, _, _ in judge(pieces(name), env).values())


# ASSIGNMENT, QUESTION, answer, points lost, words of the first message.
A1 = "matching_and_metrics"
WRONG = [
    (A1, "distance", "def euclidean_scores(q, g): return np.linalg.norm(q[:, None] - g, axis=2)", 3, "minus sign"),
    (A1, "distance", "def euclidean_scores(q, g): return -((q[:, None] - g) ** 2).sum(2)", 3, "squared"),
    (A1, "distance", "def euclidean_scores(q, g): return -np.linalg.norm(g[:, None] - q, axis=2)",
     3, "one row per query"),
    (A1, "distance", "def euclidean_scores(q, g): return -abs(q[:, None] - g).sum(2)", 3, "should be"),
    (A1, "distance", "def euclidean_scores(q, g):\n"
     "    with np.errstate(invalid='ignore'):\n"
     "        return -np.sqrt((q**2).sum(1)[:, None] + (g**2).sum(1) - 2 * q @ g.T)", 1, "NaN"),
    (A1, "cosine", "def cosine_scores(q, g): return q @ g.T", 3, "length still counts"),
    (A1, "cosine", "def cosine_scores(q, g): return q @ g.T / np.linalg.norm(q, axis=1)[:, None]",
     3, "gallery's lengths"),
    (A1, "cosine", "def cosine_scores(q, g): return q @ g.T / np.maximum(np.linalg.norm(g, axis=1), 1e-9)", 3,
     "query's length"),
    (A1, "cosine", "def cosine_scores(q, g):\n"
     "    q, g = (x / np.maximum(np.linalg.norm(x, axis=0), 1e-9) for x in (q, g))\n    return q @ g.T", 3, "0.71"),
    (A1, "cosine", "def cosine_scores(q, g):\n    q, g = (x / np.maximum(np.linalg.norm(x), 1e-9) for x in (q, g))\n"
     "    return q @ g.T", 3, "0.71"),
    (A1, "cosine", "def cosine_scores(q, g):\n    with np.errstate(all='ignore'):\n"
     "        q, g = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (q, g))\n    return q @ g.T", 1, "NaN"),
    (A1, "ranks", "def ranks_of_matches(row, match): return 1 + np.flatnonzero(match)", 3, "never look at the scores"),
    (A1, "ranks", "def ranks_of_matches(row, match): return np.argsort(-row, kind='stable')[match] + 1", 3,
     "which image stands at a rank"),
    (A1, "ranks", "def ranks_of_matches(row, match): return np.flatnonzero(match[np.argsort(-row, kind='stable')])", 3,
     "start at 0"),
    (A1, "ranks", "def ranks_of_matches(row, match): return 1 + np.flatnonzero(match[np.argsort(row)])", 3, "upwards"),
    (A1, "ranks", "def ranks_of_matches(row, match): return np.sort(1 + (row > row[:, None]).sum(1)[match])", 2,
     "not for us"),
    (A1, "ranks", "def ranks_of_matches(row, match): return 1 + np.flatnonzero(match[np.argsort(-row, kind='stable')])",
     2, "stored"),
    (A1, "ranks", "def ranks_of_matches(row, match): return np.sort((row >= row[:, None]).sum(1)[match])", 1,
     "two ranks"),
    (A1, "cmc", "def cmc(r, size): return (r[r > 0] == np.arange(1, size + 1)[:, None]).mean(1)", 3, "at* rank k"),
    (A1, "cmc", "def cmc(r, size): return (r[r > 0] < np.arange(1, size + 1)[:, None]).mean(1)", 3, "off by one"),
    (A1, "cmc", "def cmc(r, size): return (r[r > 0] <= np.arange(1, size + 1)[:, None]).sum(1)", 3, "their share"),
    (A1, "cmc", "def cmc(r, size): return ((r > 0) & (r <= np.arange(1, size + 1)[:, None])).mean(1)", 1,
     "count as not found"),
    (A1, "cmc", "def cmc(r, size): return (r <= np.arange(1, size + 1)[:, None]).mean(1)", 1, "rank 0 means"),
    (A1, "cmc", "def cmc(r, size):\n    r = r[r > 0]\n"
     "    return np.bincount(np.minimum(r, size), minlength=size + 1)[1:].cumsum() / len(r)", 1, "beyond the curve"),
    (A1, "precision", "def average_precision(r, definition='rectangle'): return np.mean(1 / np.array(r))", 3, "1 / r"),
    (A1, "precision", "def average_precision(r, definition='rectangle'):\n    r = np.sort(np.array(r, float))\n"
     "    return (np.arange(1, len(r) + 1) / r).mean()", 2, "rectangle again"),
    (A1, "precision", "def average_precision(r, definition='rectangle'):\n    r = np.sort(np.array(r, float))\n"
     "    k = np.arange(1, len(r) + 1)\n    before = (k - 1) / np.maximum(r - 1, 1)\n"
     "    return (k / r).mean() if definition == 'rectangle' else ((k / r + before) / 2).mean()", 2, "you count 0"),
    (A1, "precision", "def average_precision(r, definition='rectangle'):\n    r = np.array(r, float)\n"
     "    k = np.arange(1, len(r) + 1)\n    before = np.where(r > 1, (k - 1) / np.maximum(r - 1, 1), 1)\n"
     "    return (k / r).mean() if definition == 'rectangle' else ((k / r + before) / 2).mean()", 1, "disagrees"),
    (A1, "cameras", "def first_rank(row, i, c, ids, cams):\n    match = ids == i\n"
     "    return 1 + (row[~match] >= row[match].max()).sum() if match.any() else 0", 4, "own camera"),
    (A1, "cameras", "def first_rank(row, i, c, ids, cams):\n    match = (ids == i) & (cams != c)\n"
     "    return 1 + (row[~match] >= row[match].max()).sum() if match.any() else 0", 3, "takes up a rank"),
    (A1, "cameras", "def first_rank(row, i, c, ids, cams):\n    match = (ids == i) & (cams != c)\n"
     "    return 1 + (row > row[match].max()).sum() if match.any() else 0", 3, "takes up a rank"),
    (A1, "cameras", "def first_rank(row, i, c, ids, cams):\n    kept = (ids != i) | (cams != c)\n"
     "    found = np.flatnonzero((ids == i)[kept])\n    return 1 + found[0] if len(found) else 0", 4,
     "in another order"),
    (A1, "cameras", "def first_rank(row, i, c, ids, cams):\n    kept = (ids != i) | (cams != c)\n"
     "    order = np.argsort(-row[kept], kind='stable')\n    found = np.flatnonzero((ids == i)[kept][order])\n"
     "    return 1 + found[0] if len(found) else 0", 3, "in another order"),
    (A1, "cameras",
     "def first_rank(row, i, c, ids, cams):\n    away = cams != c\n"
     "    match, other = (ids == i) & away, (ids != i) & away\n"
     "    return 1 + (row[other] >= row[match].max()).sum() if match.any() else 0", 2, "every image"),
    (A1, "cameras", "def first_rank(row, i, c, ids, cams):\n    match = (ids == i) & (cams != c)\n"
     "    return 1 + (row[ids != i] >= row[match].max()).sum() if match.any() else 1", 2, "not in the gallery"),
    (A1, "holdout", "def hold_out(ids, share, rng):\n    p = np.unique(ids)\n"
     "    return np.isin(ids, rng.choice(p, round(share * len(p)), replace=False)).astype(int)", 2, "yours are int"),
    (A1, "holdout", "def hold_out(ids, share, rng): return rng.random(len(ids)) < share", 2, "learned by heart"),
    (A1, "holdout", "def hold_out(ids, share, rng): \n    people = np.unique(ids)\n"
     "    return np.isin(ids, people[: round(share * len(people))])", 1, "hold out the same people"),
    (A1, "holdout", "def hold_out(ids, share, rng):\n    p = np.unique(ids)\n"
     "    return ~np.isin(ids, rng.choice(p, round(share * len(p)), replace=False))", 2, "you hold out 30"),
    (A1, "holdout", "def hold_out(ids, share, rng):\n    p = np.unique(ids)\n"
     "    return np.isin(ids, rng.choice(p, int(share * len(p)), replace=False))", 2, "0.19 of 40 people is 8"),
    (A1, "report", "def number_to_report(validation, test): return test.max()", 3, "chose on the test set"),
    (A1, "report", "def number_to_report(validation, test): return validation.max()", 3, "accuracy on validation"),
    (A1, "report", "def number_to_report(validation, test): return test[-1]", 3, "last snapshot"),
    (A1, "report", "def number_to_report(validation, test): return test[validation == validation.max()].max()", 1,
     "better on the test set"),
    (A1, "interval", "def paired_interval(a, b, samples, rng):\n    d = np.asarray(a, float) - b\n"
     "    m = d[rng.integers(len(d), size=(samples, len(d)))].mean(1)\n"
     "    return d.mean(), *np.percentile(m, [2.5, 97.5])", 3, "share"),
    (A1, "interval", "def paired_interval(a, b, samples, rng):\n    a, b = 100.0 * a, 100.0 * b\n    n = len(a)\n"
     "    m = a[rng.integers(n, size=(samples, n))].mean(1) - b[rng.integers(n, size=(samples, n))].mean(1)\n"
     "    return a.mean() - b.mean(), *np.percentile(m, [2.5, 97.5])", 3, "same* queries"),
    (A1, "interval", "def paired_interval(a, b, samples, rng):\n    d = 100.0 * a - 100.0 * b\n"
     "    m = [rng.permutation(d).mean() for _ in range(samples)]\n"
     "    return d.mean(), *np.percentile(m, [2.5, 97.5])", 2, "with* replacement"),
    (A1, "interval", "def paired_interval(a, b, samples, rng):\n    d = 100.0 * a - 100.0 * b\n"
     "    m = d[rng.integers(len(d), size=(samples, len(d)))].mean(1)\n"
     "    return d.mean(), *np.percentile(m, [5, 95])", 2, "90 %"),
    (A1, "interval", "def paired_interval(a, b, samples, rng):\n    d = 100.0 * b - 100.0 * a\n"
     "    m = d[rng.integers(len(d), size=(samples, len(d)))].mean(1)\n"
     "    return d.mean(), *np.percentile(m, [2.5, 97.5])", 1, "b - a"),
    (A1, "interval", "def paired_interval(a, b, samples, rng):\n    d = 100.0 * a - 100.0 * b\n"
     "    half = 1.96 * d.std() / len(d) ** 0.5\n"
     "    return d.mean(), d.mean() - half, d.mean() + half", 1, "from the samples drawn"),
]

A2 = "fusion"
RUN = "def tap(net, images, names):\n    found, x = {}, images\n    for name, layer in net.named_children():\n"
UNIT = "part_unit = lambda p: p / p.norm(dim=1, keepdim=True)\n"
RESAMPLE = "def gain(a, b, k, samples, rng):\n    d = 100.0 * ((a > 0) & (a <= k)) - 100.0 * ((b > 0) & (b <= k))\n"
MEANS = "    return d.mean(), *np.percentile(m, [2.5, 97.5])"
WRONG += [
    (A2, "taps", RUN + "        if name in names: found[name] = x\n        x = layer(x)\n    return found",
     3, "goes *into*"),
    (A2, "taps", RUN + "        x = layer(x)\n        if name in names: found[name] = x.detach()\n    return found", 1,
     "cut off"),
    (A2, "taps", RUN + "        x = layer(x)\n        found[name] = x\n    return found", 3, "two names"),
    (A2, "taps", "def tap(net, images, names): return {name: getattr(net, name)(images) for name in names}", 4, ""),
    (A2, "field", "def receptive_field(layers):\n    r, jump, out = 1, 1, []\n    for k, s in layers:\n"
     "        jump *= s\n        r += (k - 1) * jump\n        out.append(r)\n    return out", 3, "not for itself"),
    (A2, "field", "def receptive_field(layers):\n    r, jump, out = 1, 1, []\n    for k, s in layers:\n"
     "        r += k * jump\n        jump *= s\n        out.append(r)\n    return out", 3, "(k - 1), not k"),
    (A2, "field", "def receptive_field(layers):\n    r, jump, out = 1, 1, []\n    for k, s in layers:\n"
     "        r += (k - 1) * jump\n        jump = s\n        out.append(r)\n    return out", 3, "*all* layers"),
    (A2, "pool", "def pooled(maps, how): return maps.flatten() if how == 'flatten' else maps.mean((2, 3))",
     2, "stay apart"),
    (A2, "pool", "def pooled(maps, how): return maps.flatten(1) if how == 'flatten' else maps.mean(1)",
     2, "the channels"),
    (A2, "pool", "def pooled(maps, how): return maps.flatten(1) if how == 'flatten' else maps.amax((2, 3))",
     2, "maximum"),
    (A2, "pool", "def pooled(maps, how): return maps.flatten(1) if how == 'flatten' else maps.mean((0, 2, 3))", 2,
     "images of the batch"),
    (A2, "pool", "def pooled(maps, how): return maps.flatten(1) if how == 'flatten' else maps.mean((2, 3))", 1,
     "instead of guessing"),
    (A2, "unit", "def unit(x): return x / x.norm()", 3, "each row by itself"),
    (A2, "unit", "def unit(x): return x / x.norm(dim=0)", 3, "the columns"),
    (A2, "unit", "def unit(x): return x / x.abs().sum(1, keepdim=True).clamp(min=1e-12)", 3, "take the root"),
    (A2, "unit", "def unit(x): return x / x.square().sum(1, keepdim=True).clamp(min=1e-12)", 3, "lengths of your rows"),
    (A2, "unit", "def unit(x): return x / x.norm(dim=1, keepdim=True)", 1, "NaN"),
    (A2, "unit", "def unit(x): return x.div_(x.norm(dim=1, keepdim=True).clamp(min=1e-12))", 1, "that came in"),
    (A2, "fuse", "def fuse(parts): return torch.cat(parts, 1)", 4, "joined as they are"),
    (A2, "fuse", UNIT + "def fuse(parts): return part_unit(torch.cat(parts, 1))", 4, "the *parts*"),
    (A2, "fuse", UNIT + "def fuse(parts): return torch.cat([part_unit(p) for p in parts])", 4, ""),
    (A2, "fuse", "def fuse(parts): return torch.cat([p / p.norm() for p in parts], 1)", 3, "right is 1"),
    (A2, "fuse", UNIT + "def fuse(parts): return part_unit(torch.cat([part_unit(p) for p in parts], 1))", 3,
     "the *parts*"),
    (A2, "fuse", UNIT + "def fuse(parts): return torch.cat([part_unit(p) for p in parts[:2]], 1)", 1,
     "three parts"),
    (A2, "cosines", "def fused_distance(c): return (2 * len(c) - 2 * c.sum(0)).clamp(min=0)", 3, "squared"),
    (A2, "cosines", "def fused_distance(c): return (len(c) - c.sum(0)).clamp(min=0).sqrt()", 3, "a factor is lost"),
    (A2, "cosines", "def fused_distance(c): return (2 * len(c) - 2 * c.sum((0, 1))).clamp(min=0).sqrt()",
     2, "parts only"),
    (A2, "cosines", "def fused_distance(c): return (4 - 2 * c.sum(0)).clamp(min=0).sqrt()", 1, "three right angles"),
    (A2, "cosines", "def fused_distance(c): return (2 * len(c) - 2 * c.sum(0)).sqrt()", 1, "NaN"),
    (A2, "predict", "better = {'aligned': 'gap', 'shifted': 'flatten'}", 2, "which vector can say so"),
    (A2, "predict", "better = {'aligned': 'flatten', 'shifted': 'flatten'}", 2, "does not mind"),
    (A2, "rank1", "def rank1(q, g): return 100 * (torch.cdist(q, g).argmin(0) == torch.arange(len(q))).float().mean()",
     3, "which photo"),
    (A2, "rank1", "def rank1(q, g): return 100 * (torch.cdist(q, g).argmax(1) == torch.arange(len(q))).float().mean()",
     3, "*smallest*"),
    (A2, "rank1", "def rank1(q, g): return (torch.cdist(q, g).argmin(1) == torch.arange(len(q))).float().mean()", 3,
     "not a share"),
    (A2, "rank1", "def rank1(q, g): return 100 * (torch.cdist(q, g).argmin(1) == torch.arange(len(q))).float().mean()",
     1, "ties go against us"),
    (A2, "gain", RESAMPLE.replace("(a > 0) & ", "").replace("(b > 0) & ", "")
     + "    r = rng.integers\n    S, Q = d.shape\n"
     "    m = [d[r(S, size=S)][:, r(Q, size=Q)].mean() for _ in range(samples)]\n" + MEANS, 1, "skipped"),
    (A2, "gain", RESAMPLE.replace("<=", "<") + "    r = rng.integers\n    S, Q = d.shape\n"
     "    m = [d[r(S, size=S)][:, r(Q, size=Q)].mean() for _ in range(samples)]\n" + MEANS, 4, "at most k"),
    (A2, "gain", RESAMPLE + "    Q = d.shape[1]\n"
     "    m = [d[:, rng.integers(Q, size=Q)].mean() for _ in range(samples)]\n" + MEANS, 2, "Draw the runs"),
    (A2, "gain", RESAMPLE + "    S = len(d)\n"
     "    m = [d[rng.integers(S, size=S)].mean() for _ in range(samples)]\n" + MEANS, 1, "10.4 points"),
    (A2, "gain", RESAMPLE + "    d = d.ravel()\n"
     "    m = [d[rng.integers(len(d), size=len(d))].mean() for _ in range(samples)]\n" + MEANS, 3, "Draw the runs"),
    (A2, "gain", "def gain(a, b, k, samples, rng):\n    r = rng.integers\n    S, Q = a.shape\n"
     "    a, b = (100.0 * ((x > 0) & (x <= k)) for x in (a, b))\n    d = a - b\n"
     "    draw = lambda x: x[r(S, size=S)][:, r(Q, size=Q)].mean()\n"
     "    m = [draw(a) - draw(b) for _ in range(samples)]\n" + MEANS, 3, "too wide"),
    (A2, "gain", "def gain(a, b, k, samples, rng):\n    r = rng.integers\n    S, Q = a.shape\n"
     "    a, b = (100.0 * ((x > 0) & (x <= k)) for x in (a, b))\n    d, m = a - b, []\n"
     "    for _ in range(samples):\n        s = r(S, size=S)\n"
     "        m.append(a[s][:, r(Q, size=Q)].mean() - b[s][:, r(Q, size=Q)].mean())\n" + MEANS, 3,
     "no gain over itself"),
    (A2, "verdict", "def verdict(mean, low, high): return 'better' if mean > 0 else 'worse'",
     3, "undecided, not better"),
    (A2, "verdict", "def verdict(mean, low, high): \n"
     "    return 'better' if low >= 0 else 'worse' if high < 0 else 'undecided'", 2, "ends at zero"),
]

A5 = "qaconv_and_time"
PLACES = "def all_cosines(q, g):\n    q, g = (x.flatten(2) for x in (q, g))\n"
MEMORY = "def memory_loss(logits, labels, written):\n    if not written.any(): return 0 * logits.sum()\n" \
    "    same = (labels[:, None] == torch.arange(logits.shape[1])).float()\n" \
    "    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, same, reduction='none')\n"
LIFT = "def lift(scores, cams, when, times, tau, sigma, k):\n    out = np.zeros_like(scores)\n" \
    "    for i, row in enumerate(near(cams, when, tau)):\n        found = pivots(scores, row, k)\n"
WRONG += [
    (A5, "cosines", PLACES + "    return torch.einsum('qdi,gdj->qgij', q, g)", 6, "cosines are at most 1"),
    (A5, "cosines", PLACES + "    q, g = (x / x.norm(dim=1, keepdim=True).clamp(min=1e-12) for x in (q, g))\n"
     "    return torch.einsum('qdi,gdj->qgji', q, g)", 2, "exchanged"),
    (A5, "cosines", PLACES + "    q, g = (x / x.norm(dim=2, keepdim=True).clamp(min=1e-12) for x in (q, g))\n"
     "    return torch.einsum('qdi,gdj->qgij', q, g)", 4, "cosines are at most 1"),
    (A5, "cosines", PLACES + "    q, g = (x / x.norm(dim=1, keepdim=True) for x in (q, g))\n"
     "    return torch.einsum('qdi,gdj->qgij', q, g)", 3, "NaN"),
    (A5, "best", "def best_matches(c): return torch.cat([c.amax(3), c.amax(2)], 2)", 3, "*query* comes first"),
    (A5, "best", "def best_matches(c): return torch.cat([c.amax(2), c.amax(2)], 2)", 4, "one direction, twice"),
    (A5, "best", "def best_matches(c): return c.amax((2, 3))", 6, "3 + 3 numbers"),
    (A5, "best", "def best_matches(c): return torch.cat([c.mean(2), c.mean(3)], 2)", 6, "are right"),
    (A5, "best", "def best_matches(c): return torch.cat([c.clamp(min=0).amax(2), c.clamp(min=0).amax(3)], 2)", 1,
     "another's matches"),
    (A5, "score", "def qa_score(q, g): return best_matches(all_cosines(q, g)).sum(2)", 3, "at most 1"),
    (A5, "score", "def qa_score(q, g): return all_cosines(q, g).mean((2, 3))", 3, "find all forty"),
    (A5, "score", "def qa_score(q, g): return all_cosines(q, g).amax(3).mean(2)", 1, "both directions"),
    (A5, "memory", MEMORY + "    return loss.mean()", 3, "never written"),
    (A5, "memory", MEMORY + "    return loss[:, written].sum()", 3, "take their mean"),
    (A5, "memory", MEMORY + "    return (loss * written).mean()", 3, "divide by all pairs"),
    (A5, "memory", MEMORY + "    return loss[same.bool() & written].mean()", 3, "only the right classes"),
    (A5, "memory", MEMORY.replace("if not written.any(): return 0 * logits.sum()", "pass")
     + "    return loss[:, written].mean()", 1, "empty memory"),
    (A5, "near", "def near(cams, times, tau): return abs(times[:, None] - times) < tau", 5, "same camera"),
    (A5, "near", "def near(cams, times, tau):\n    apart = abs(times[:, None] - times)\n"
     "    return (cams[:, None] == cams) & (apart < tau) & (apart > 0)", 5, "near itself"),
    (A5, "near", "def near(cams, times, tau): return (cams[:, None] == cams) & (times[:, None] - times < tau)",
     5, "sign"),
    (A5, "near", "def near(cams, times, tau): return (cams[:, None] == cams) & (abs(times[:, None] - times) <= tau)",
     3, "not less than"),
    (A5, "pivots", "def pivots(scores, near_row, k):\n"
     "    return np.argsort(-scores[near_row], axis=1, kind='stable')[:, :k].ravel()", 7, "not k of each"),
    (A5, "pivots", "def pivots(scores, near_row, k):\n"
     "    return np.argsort(-scores[np.flatnonzero(near_row)[0]], kind='stable')[:k]", 7, "A's own search"),
    (A5, "pivots", "def pivots(scores, near_row, k): return np.argsort(-scores[near_row].ravel(), kind='stable')[:k]",
     7, "numbers of pairs"),
    (A5, "pivots", "def pivots(scores, near_row, k):\n    found = scores[near_row]\n"
     "    return np.argsort(found.ravel(), kind='stable')[:k] % found.shape[1]", 7, "best pairs"),
    (A5, "pivots", "def pivots(scores, near_row, k): return np.argsort(-scores[near_row].max(0), kind='stable')[:k]", 3,
     "twice"),
    (A5, "density", "def density(t, p, sigma): return np.exp(-((t[:, None] - p) ** 2) / sigma**2).mean(1)",
     7, "the 2 below"),
    (A5, "density", "def density(t, p, sigma): return np.exp(-((t[:, None] - p) ** 2) / (2 * sigma**2)).sum(1)", 4,
     "sum over the pivots"),
    (A5, "density", "def density(t, p, sigma): return np.exp(-((t[:, None] - p) ** 2) / (2 * sigma**2)).max(1)", 4,
     "takes it all"),
    (A5, "density", "def density(t, p, sigma): return np.exp(-((t[:, None] - p) ** 2) / (2 * sigma)).mean(1)",
     7, "right are"),
    (A5, "lift", LIFT + "        out[i] = density(times, times[found], sigma)\n    return out", 4, "p alone"),
    (A5, "lift", LIFT + "        out[i] = density(times, times[found], sigma) + scores[i]\n    return out",
     4, "do not add"),
    (A5, "lift", LIFT.replace("np.zeros_like(scores)", "scores")
     + "        out[i] = density(times, times[found], sigma) * scores[i]\n    return out", 4, "that came in"),
]


def loses(name: str, question: str, answer: str, lost: float, words: str) -> None:
    """One wrong answer: it must lose these points, and these words must stand in the first message it gets."""
    results = grade(name, question, answer).values()
    messages = [message for _, _, message in results if message]
    assert sum(points - earned for earned, points, _ in results) == lost, messages
    assert words in messages[0], messages


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", WRONG, ids=[f"{i}-{c[0]}-{c[1]}" for i, c in enumerate(WRONG)])
def test_a_wrong_answer_loses_its_points(case):
    loses(*case)


def master(*cells) -> nbformat.NotebookNode:
    make = {"raw": nbformat.v4.new_raw_cell, "md": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}
    return nbformat.v4.new_notebook(cells=[make[kind](text) for kind, text in cells])


HEAD = '""" # BEGIN TEST CONFIG\npoints: 1\n""" # END TEST CONFIG\n'
TEST = HEAD + 'def test_it(f):\n    "What it tests."\n    assert f(1) == 2'


def small(answer: str, test: str = TEST) -> nbformat.NotebookNode:
    """A source with one question."""
    return master(
        ("md", "# Small\n\n[x](../a.md)"), ("code", "%pip install"), ("raw", "# BEGIN QUESTION\nname: q"),
        ("md", "Do it."), ("raw", "# BEGIN SOLUTION"), ("code", answer), ("raw", "# END SOLUTION"),
        ("raw", "# BEGIN TESTS"), ("code", test),
        ("code", TEST.replace("points: 1", "points: 2\nhidden: true").replace("test_it", "test_more")),
        ("raw", "# END TESTS"), ("raw", "# END QUESTION"),
    )


GOOD = "def f(x):\n    # BEGIN SOLUTION\n    # STUB: y = ...\n    y = x + 1\n    # END SOLUTION\n    return y"


@pytest.fixture
def write(tmp_path):
    """Writes a source into an empty project, and returns its root."""

    def write(source):
        path = tmp_path / assignments.FOLDER / "source" / "small.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(source, path)
        return tmp_path

    return write


def test_what_is_generated(write):
    root = write(small(GOOD))
    assert len(assignments.stale(root)) == 2 and assignments.main(["--check"], root) == 1
    assert assignments.main([], root) == 0 == assignments.main(["--check"], root)
    text = {k: assignments.notebook(root / assignments.FOLDER / "source" / "small.ipynb", k)
            for k in ("student", "solution", "nbgrader")}
    codes = {k: [c.source for c in nbformat.reads(t, 4).cells if c.cell_type == "code"] for k, t in text.items()}
    assert "def f(x):\n    y = ...\n    return y" in codes["student"]
    assert "def f(x):\n    y = x + 1\n    return y" in codes["solution"]
    assert "test_more" not in text["student"] and "check(test_more, 2)" in text["solution"]
    assert "../../a.md" in text["solution"] and "../../a.md" not in text["student"]
    graded = [c.metadata.nbgrader for c in nbformat.reads(text["nbgrader"], 4).cells if "nbgrader" in c.metadata]
    assert [g["points"] for g in graded if g["grade"]] == [1, 2] and sum(g["solution"] for g in graded) == 1
    assert sum("### BEGIN HIDDEN TESTS\n" in code for code in codes["nbgrader"]) == 1
    (root / assignments.FOLDER / "small.ipynb").write_text(text["student"].replace("Do it.", "Do it!"))
    (root / assignments.FOLDER / "left.ipynb").write_text(text["student"])
    found = [sentence.split()[0] for sentence in assignments.stale(root)]
    assert found == ["book/assignments/left.ipynb", "book/assignments/small.ipynb"]


FAULTS = {
    "signature": ("# BEGIN SOLUTION\n# STUB: def f(z): ...\ndef f(x):\n    return x + 1\n# END SOLUTION",
                  "the stub of f is (z), its solution (x)"),
    "name": ("f = len\n# BEGIN SOLUTION\n# STUB: g = ...\nh = 1\n# END SOLUTION",
             "the stub of g is a value, its solution None"),
    "keys": ("f = len\n# BEGIN SOLUTION\n# STUB: g = {'a': ..., 'b': ...}\ng = {'a': 1}\n# END SOLUTION",
             "the stub of g is a value with 'a', 'b', its solution a value with 'a'"),
    "nothing to do": ("def f(x):\n    return x + 1", "no '...' is left"),
    "stub outside": (GOOD + "\n# STUB: z = ...", "marker stands in a wrong place"),
    "open region": (GOOD.replace("    # END SOLUTION\n", ""), "marker stands in a wrong place"),
    "tested name": (GOOD.replace("def f", "def g"), "tests f, which students do not define"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_source_with_a_fault(fault, write, capsys):
    answer, words = FAULTS[fault]
    assert assignments.main([], write(small(answer))) == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("test", [HEAD, TEST.removeprefix(HEAD), TEST.replace("What it tests.", ""), TEST + "\nf(1)"])
def test_a_test_cell_with_a_fault(test, write, capsys):
    assert assignments.main([], write(small(GOOD, test))) == 1 and "TEST CONFIG" in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_the_guide_names_the_points(name, root):
    """The table of the teacher's guide says how many points a source holds."""
    tests = [p for p in pieces(name) if p.kind == "test"]
    by_hand = sum(p.points for p in pieces(name) if p.kind == "answer" and p.cell.cell_type == "markdown")
    hidden = sum(p.points for p in tests if p.hidden)
    guide = (root / "book" / "teaching.md").read_text(encoding="utf8").split("\n")
    line = next(line for line in guide if f"assignments/{name}>" in line)
    assert f"| {sum(p.points for p in tests)} ({hidden}) | {by_hand} |" in line
