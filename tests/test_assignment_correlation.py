"""Coursework, assignment 4: typical wrong answers about correlation, windows and losses, and what each must lose."""

from __future__ import annotations

import pytest
from test_assignments import loses

HAND = "def slow_correlate(image, part):\n    (h, w), f = image.shape, len(part)\n    a, b = %s\n" \
    "    x, out = F.pad(image, (a, b, a, b)), torch.zeros(h, w)\n    for i in range(h):\n        for j in range(w):\n" \
    "            out[i, j] = (x[i : i + f, j : j + f] * part%s).sum()\n    return out"
FAST = "def fast_correlate(maps, parts):\n    p, k, c, f = parts.shape[:4]\n    a, b = (f - 1) // 2, f // 2\n" \
    "    maps = F.pad(maps, (a, b, a, b))\n"
REPEAT = "    maps = maps[:, None].expand(-1, k, -1, -1, -1).flatten(0, 2)[None]\n"
SPLIT = "def bounded(raw):\n    (s, r, t), (u, v, w) = (x.unbind(-1) for x in raw.unflatten(-1, (2, 3)).unbind(-2))\n"
STACK = "    return torch.stack([torch.stack([s, r, t], -1), torch.stack([v, u, w], -1)], -2)"
ROOM = "    s, u = (s + 1) / 2, (u + 1) / 2\n    r, v = (1 - s) * r, (1 - u) * v\n"
CUT = "def cut(maps, transform, size):\n    n = [len(maps), 1, size, size]\n" \
    "    grid = F.affine_grid(transform, n, align_corners=%s)\n" \
    "    return F.grid_sample(maps, grid, %salign_corners=%s)"
LOSS = "def contrastive(first, second, match, margin=1.0):\n    d = (first - second).norm(dim=1)\n"
ALL = "def score_all(encode, pair_score, queries, gallery, chunk):\n"
ONCE = ALL + "    q, g = encode(queries), encode(gallery)\n"
PAIRS = "    i = torch.arange(len(q) * len(g))\n"
FOOLED = "fooled = {'moved': %r, 'same cells in another order': %r}"

# QUESTION, answer, points lost, words of the first message.
WRONG = [
    ("hand", HAND % ("(f - 1) // 2, f // 2", ".flip(0, 1)"), 4, "is a convolution"),
    ("hand", HAND % ("f // 2, (f - 1) // 2", ""), 2, "shifted by a cell"),
    ("hand", HAND % ("f // 2, f // 2", ""), 2, "shifted by a cell"),
    ("hand", "def slow_correlate(image, part):\n"
     "    return image.unfold(0, len(part), 1).unfold(1, len(part), 1).mul(part).sum((2, 3))", 4, "inner cells only"),
    ("hand", "def slow_correlate(image, part):\n    f, out = len(part), torch.zeros_like(image)\n"
     "    for i in range(f):\n        for j in range(f):\n            a = (f - 1) // 2\n"
     "            out += part[i, j] * image.roll((a - i, a - j), (0, 1))\n    return out", 3, "comes in on the other"),
    ("hand", HAND % ("(f - 1) // 2, f // 2", ".T"), 3, "around the 1"),
    ("hand", HAND.replace("torch.zeros(h, w)", "image") % ("(f - 1) // 2, f // 2", ""), 1, "that came in"),
    ("fast", FAST + "    return F.conv2d(maps.flatten(0, 1)[None], parts.flatten(0, 1), groups=p).view(p, k, "
     "*[n - f + 1 for n in maps.shape[2:]])", 3, "channels are summed up"),
    ("fast", FAST + REPEAT.replace("[:, None]", "[:, :, None]").replace("-1, k, -1", "-1, -1, k")
     + "    out = F.conv2d(maps, parts.transpose(1, 2).flatten(0, 2)[:, None], groups=p * k * c)\n"
     "    return out.view(p, k * c, *out.shape[-2:])", 3, "come first"),
    ("fast", FAST + "    out = [F.conv2d(maps, x[:, None], groups=c) for x in parts[0]]\n"
     "    return torch.cat(out, 1)", 3, "parts of its own"),
    ("fast", FAST.replace("(a, b, a, b)", "(b, b, b, b)") + REPEAT
     + "    out = F.conv2d(maps, parts.flatten(0, 2)[:, None], groups=p * k * c)\n"
     "    return out.view(p, k * c, *out.shape[-2:])", 2, "the map's size"),
    ("fast", FAST.replace("(a, b, a, b)", "(b, a, b, a)") + REPEAT
     + "    out = F.conv2d(maps, parts.flatten(0, 2)[:, None], groups=p * k * c)\n"
     "    return out.view(p, k * c, *out.shape[-2:])", 2, "1 cell before, 2 behind"),
    ("fast", FAST + REPEAT + "    out = F.conv2d(maps, parts.detach().flatten(0, 2)[:, None], groups=p * k * c)\n"
     "    return out.view(p, k * c, *out.shape[-2:])", 1, ""),
    ("both", "def both_ways(slide, a, b): return torch.cat([slide(*a), slide(*b)], 1)", 2, "its own parts"),
    ("both", "def both_ways(slide, a, b): return slide(a[0], b[1])", 3, "one direction"),
    ("both", "def both_ways(slide, a, b): return slide(a[0], b[1]) + slide(b[0], a[1])", 3, "added up"),
    ("both", "def both_ways(slide, a, b): return torch.cat([slide(b[0], a[1]), slide(a[0], b[1])], 1)", 2,
     "order is exchanged"),
    ("both", "def both_ways(slide, a, b): return torch.cat([slide(a[0], b[1]), slide(b[0], a[1])])", 1, "3, 4, 4, 4"),
    ("window", SPLIT + "    r, v = (1 - s) * r, (1 - u) * v\n"
     "    t, w = (1 - s - r.abs()) * t, (1 - u - v.abs()) * w\n" + STACK, 5, "a point"),
    ("window", SPLIT + "    s, u = (s + 1) / 2, (u + 1) / 2\n    t, w = (1 - s) * t, (1 - u) * w\n" + STACK, 5,
     "r = 0.1 are right"),
    ("window", SPLIT + ROOM + "    t, w = (1 - s) * t, (1 - u) * w\n" + STACK, 5, "t = (1 - 0.8 - 0.1)"),
    ("window", SPLIT + ROOM + "    t, w = (1 - s - r) * t, (1 - u - v) * w\n" + STACK, 3, "leave the map"),
    ("window", SPLIT + ROOM + "    t, w = (1 - s - r.abs()) * t, (1 - u - v.abs()) * w\n"
     + STACK.replace("[v, u, w]", "[u, v, w]"), 3, "stands in the middle"),
    ("start", "def start_bias(scale): return torch.zeros(6)", 2, "bias of zeros"),
    ("start", "def start_bias(scale): return torch.tensor([0.6, 0, 0, 0, 0.6, 0])[[0, 1, 2, 4, 3, 5]].atanh()", 2,
     "asked for 0.3"),
    ("start", "def start_bias(scale): return torch.tensor([2 * scale - 1, 0.0, 0.0]).repeat(2)", 2, "undo the tanh"),
    ("start", "def start_bias(scale): return torch.tensor([scale, 0.0, 0.0]).repeat(2)", 2, "not yet the bias"),
    ("start", "def start_bias(scale): return torch.tensor([2 * scale - 1, 2 * scale - 1, 0.0, 0, 0, 0]).atanh()", 2,
     "numbers 1 and 4"),
    ("start", "def start_bias(scale): return torch.tensor([2 * scale - 1, 0.0, 0, 0, 0, 0]).atanh()", 2, "start alike"),
    ("cut", CUT % ("True", "padding_mode='border', ", "True"), 3, "outer edges"),
    ("cut", CUT % ("False", "padding_mode='border', ", "True"), 3, "the map itself"),
    ("cut", CUT % ("False", "", "False"), 1, "border darkens"),
    ("cut", (CUT % ("False", "padding_mode='border', ", "False")).replace("affine_grid(transform", "affine_grid("
     "transform[:, [1, 0]][..., [1, 0, 2]]"), 2, "exchanged"),
    ("cut", (CUT % ("False", "padding_mode='border', ", "False")).replace("affine_grid(transform", "affine_grid("
     "transform[:1].expand(len(maps), -1, -1)"), 1, "own window"),
    ("upright", "def rotation_penalty(t): return (t[..., 0, 1] + t[..., 1, 0]).mean()", 2, "cancel"),
    ("upright", "def rotation_penalty(t): return (t[..., 0, 1].abs() + t[..., 1, 0].abs()).sum()",
     2, "this is the sum"),
    ("upright", "def rotation_penalty(t): return (t[..., 0, 1] ** 2 + t[..., 1, 0] ** 2).mean()", 2, "squares"),
    ("upright", "def rotation_penalty(t): return t[..., [0, 1], [1, 0]].abs().mean()", 2, "not averaged"),
    ("upright", "def rotation_penalty(t): return (t[..., 0, 0].abs() + t[..., 1, 1].abs()).mean()",
     2, "row 1, column 2"),
    ("contrastive", LOSS + "    return torch.where(match, d**2, (margin - d).relu() ** 2).mean()", 3, "factor 1/2"),
    ("contrastive", LOSS + "    return 0.5 * torch.where(match, d**2, (margin - d).relu() ** 2).sum()", 3,
     "this is the sum"),
    ("contrastive", LOSS + "    return 0.5 * torch.where(match, d**2, (margin - d).relu()).mean()",
     3, "hinge is squared"),
    ("contrastive", LOSS + "    return 0.5 * torch.where(match, d**2, (margin - d**2).relu() ** 2).mean()", 3,
     "not with its square"),
    ("contrastive", LOSS + "    return 0.5 * torch.where(match, (margin - d).relu() ** 2, d**2).mean()",
     3, "exchanged"),
    ("contrastive", LOSS + "    return 0.5 * torch.where(match, d**2, (margin - d) ** 2).mean()", 3, "costs nothing"),
    ("contrastive", LOSS.replace("(first - second).norm(dim=1)", "(first - second).square().sum(1).sqrt()")
     + "    return 0.5 * torch.where(match, d**2, (margin - d).relu() ** 2).mean()", 1, "the root of 0"),
    ("contrastive", LOSS.replace("(first - second).norm(dim=1)", "((first - second).square().sum(1) + 1e-4).sqrt()")
     + "    return 0.5 * torch.where(match, d**2, (margin - d).relu() ** 2).mean()", 1, "guard"),
    ("contrastive", LOSS + "    return 0.5 * torch.where(match, d**2, (1 - d).relu() ** 2).mean()", 1, "margin=0.7"),
    ("cache", ALL
     + "    return torch.stack([pair_score(encode(queries[i : i + 1]).expand(len(gallery), -1), encode(gallery))\n"
     "                        for i in range(len(queries))])", 3, "each once"),
    ("cache", ONCE
     + PAIRS + "    return pair_score(q[i // len(g)], g[i % len(g)]).view(len(q), len(g))", 1, "at a time"),
    ("cache", ONCE
     + PAIRS + "    s = torch.cat([pair_score(q[p // len(g)], g[p % len(g)]) for p in i.split(chunk)])\n"
     "    return s.view(len(g), len(q))", 3, "is turned"),
    ("cache", ONCE
     + PAIRS + "    s = torch.cat([pair_score(g[p % len(g)], q[p // len(g)]) for p in i.split(chunk)])\n"
     "    return s.view(len(q), len(g))", 2, "the query comes first"),
    ("cache", ALL + "    q, g = queries, gallery\n"
     + PAIRS + "    s = torch.cat([pair_score(q[p // len(g)], g[p % len(g)]) for p in i.split(chunk)])\n"
     "    return s.view(len(q), len(g))", 4, "encode them first"),
    ("cost", "def operations(image, pair, q, g): return q * g * (image + pair), (q + g) * image + q * g * pair", 2,
     "*two* images"),
    ("cost", "def operations(image, pair, q, g): return q * g * (2 * image + pair), (q + g) * image", 2,
     "comparisons themselves"),
    ("cost", "def operations(image, pair, q, g): return q * g * (2 * image + pair), q * g * (image + pair)", 2,
     "not one for each pair"),
    ("predict", FOOLED % ("average", "cell by cell"), 2, "does not notice"),
    ("predict", FOOLED % ("cell by cell", "sliding parts"), 2, "throws the order away"),
    ("fit", "def best_fit(s, parts):\n    return s.amax((2, 3)).unflatten(1, (parts, -1)).sum(2).mean(1)", 3,
     "add up the channels first"),
    ("fit", "def best_fit(s, parts): return s.unflatten(1, (parts, -1)).sum(2).amax((1, 2, 3))", 3, "decides alone"),
    ("fit", "def best_fit(s, parts): return s.unflatten(1, (parts, -1)).sum(2).mean((1, 2, 3))", 3, "over the cells"),
    ("fit", "def best_fit(s, parts): return s.unflatten(1, (-1, parts)).sum(1).amax((2, 3)).mean(1)",
     3, "part by part"),
    ("fit", "def best_fit(s, parts):\n    return s.unflatten(1, (parts, -1)).sum(2).relu().amax((2, 3)).mean(1)", 1,
     "negative ones lost"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", WRONG, ids=[f"{i}-{c[0]}" for i, c in enumerate(WRONG)])
def test_a_wrong_answer_loses_its_points(case):
    loses("correlation_and_attention", *case)
