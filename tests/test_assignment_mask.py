"""Coursework, assignment 3: typical wrong answers about the mask, each with what it must lose and be told."""

from __future__ import annotations

import pytest
from test_assignments import loses

TWO = "class TwoNetworks(nn.Module):\n    def __init__(self, grn, lan):\n        super().__init__()\n" \
    "        self.grn, self.lan, self.frozen = grn, lan, False\n"
FREEZE = "    def freeze_global(self):\n        self.frozen = True\n        self.grn.requires_grad_(False).eval()\n"
TRAIN = "    def train(self, mode=True):\n        super().train(mode)\n"
LOOK = "def look_twice(images, grn, lan, make_mask):\n    early = grn.early(images)\n" \
    "    g = grn.late(early).mean((2, 3))\n    mask = make_mask(g)\n"
HINGE = "def hinge(global_logits, local_logits, labels, margin):\n    rows = torch.arange(len(labels))\n" \
    "    a, b = (x.softmax(1)[rows, labels] for x in (global_logits.detach(), local_logits))\n"
CHOICE = "control = {'is it the mask?': %r, 'would any two networks do?': %r, 'is it only longer training?': %r}"
PREDICT = "answers = {'hide': %r, 'learn': %r, 'all': %r, 'one': %r}"
VERDICT = "def what_helped(a, b, c):\n"

# QUESTION, answer, points lost, words of the first message.
WRONG = [
    ("mask", "def mask_values(x, limit=10.0): return x.clamp(max=limit).exp()", 2, "no mask is below 1"),
    ("mask", "def mask_values(x, limit=10.0): return x.exp().relu()", 3, "no mask is below 1"),
    ("mask", "def mask_values(x, limit=10.0): return x.relu().clamp(max=limit)", 3, "exponential is missing"),
    ("mask", "def mask_values(x, limit=10.0): return x.relu().clamp(max=limit).expm1()", 3, "you subtract 1"),
    ("mask", "def mask_values(x, limit=10.0): return x.relu().exp()", 1, "exp(90) is too large"),
    ("mask", "def mask_values(x, limit=10.0): return x.relu().clamp(max=10).exp()", 1, "must cut at 2"),
    ("mask", "import math\ndef mask_values(x, limit=10.0): return x.relu().exp().clamp(max=math.exp(limit))", 1,
     "before* the exponential"),
    ("order", "def as_map(v, height, width): return v.view(-1, 1, height, width)", 3, "row by row"),
    ("order", "def as_map(v, height, width): return v.view(-1, 1, width, height)", 3, "rows and columns are exchanged"),
    ("order", "def as_map(v, height, width):\n    out = torch.zeros(len(v), 1, height, width)\n"
     "    for k in range(1, height * width + 1):\n        j = k // height + 1\n"
     "        out[:, 0, k - height * (j - 1) - 1, (j - 1) % width] = v[:, k - 1]\n    return out", 3, "k - 1, not k"),
    ("order", "def as_map(v, height, width): return v[0].view(1, 1, width, height).mT", 1, "three maps"),
    ("order", "def as_map(v, height, width): return v.T.reshape(-1, 1, width, height).mT", 1, "mixed up"),
    ("look", LOOK.replace(".mean((2, 3))", ".amax((2, 3))")
     + "    return g, lan.late(early * mask).mean((2, 3)), mask", 2, "not the maximum"),
    ("look", LOOK.replace("grn.late(early).", "early.") + "    return g, lan.late(early * mask).mean((2, 3)), mask", 3,
     "take its last one"),
    ("look", LOOK + "    return g, (lan.late(early) * mask).mean((2, 3)), mask", 2, "*last* map"),
    ("look", LOOK + "    return g, lan.late(early + mask).mean((2, 3)), mask", 2, "multiply"),
    ("look", LOOK + "    return g, lan.late(lan.early(images) * mask).mean((2, 3)), mask", 2, "not from the image"),
    ("look", LOOK + "    return g, grn.late(early * mask).mean((2, 3)), mask", 2, "the LAN's late half"),
    ("look", LOOK + "    return g, lan.late(early).mean((2, 3)), mask", 3, "the mask is not used"),
    ("look", LOOK + "    return g, lan.late(early * mask.detach()).mean((2, 3)), mask", 1, "no gradient reaches W"),
    ("look", LOOK + "    return g, lan.late(early * mask).mean((2, 3)), mask[:1]", 1, "one per image"),
    ("predict", PREDICT % ("yes", "no", "no", "yes"), 1, "at least 1"),
    ("predict", PREDICT % ("no", "yes", "no", "yes"), 1, "who would move W"),
    ("predict", PREDICT % ("no", "no", "yes", "yes"), 2, "divides a common factor out"),
    ("predict", PREDICT % ("no", "no", "no", "no"), 2, "of the *batch*"),
    ("freeze", TWO + FREEZE.replace(".eval()", "") + TRAIN + "        return self", 3, "woke its batch norm"),
    ("freeze", TWO + FREEZE + TRAIN + "        return self", 2, "woke its batch norm"),
    ("freeze", TWO + FREEZE.replace("requires_grad_(False).", "") + TRAIN
     + "        self.grn.train(mode and not self.frozen)\n        return self", 1, "may still move"),
    ("freeze", TWO + FREEZE.replace("self.grn.requires", "self.requires") + TRAIN
     + "        self.grn.train(mode and not self.frozen)\n        return self", 2, "not the LAN"),
    ("freeze", TWO + FREEZE + TRAIN + "        self.grn.eval()\n        return self", 1, "before freeze_global()"),
    ("freeze", TWO + FREEZE + TRAIN + "        self.grn.train(mode and not self.frozen)", 1, ""),
    ("freeze", TWO + FREEZE + TRAIN + "        if self.frozen: self.eval()\n        return self", 3, ""),
    ("hinge", HINGE + "    return (a - b + margin).relu().sum()", 2, "take their mean"),
    ("hinge", HINGE + "    return (b - a + margin).relu().mean()", 4, "exchanged"),
    ("hinge", HINGE + "    return (a - b).relu().mean()", 3, "margin is missing"),
    ("hinge", HINGE + "    return (a - b + margin).mean().relu()", 2, "on each image"),
    ("hinge", HINGE.replace(".softmax(1)", "") + "    return (a - b + margin).relu().mean()", 3, "use probabilities"),
    ("hinge", HINGE.replace("softmax(1)[rows, labels]", "softmax(1).amax(1)")
     + "    return (a - b + margin).relu().mean()", 4, "the *right* class"),
    ("hinge", HINGE.replace(".detach()", "") + "    return (a - b + margin).relu().mean()", 1, "reaches the GRN"),
    ("pull", "def hinge_pull(a, b, margin): return (a - b + margin > 0).float()", 3, "derivative by p"),
    ("pull", "def hinge_pull(a, b, margin): return (a - b + margin > 0) * (1 - b)", 3, "cross-entropy"),
    ("pull", "def hinge_pull(a, b, margin): return (a - b + margin > 0) * b * (b - 1)", 3, "sign is turned"),
    ("pull", "def hinge_pull(a, b, margin): return b * (1 - b)", 3, "satisfied"),
    ("pull", "def hinge_pull(a, b, margin): return (a - b > 0) * b * (1 - b)", 3, "right are 0.09"),
    ("margin", "pulls_most_at, silent_from = 0.02, 0.02", 2, "largest *value*"),
    ("margin", "pulls_most_at, silent_from = 0.5, 0.98", 2, "far less is enough"),
    ("margin", "pulls_most_at, silent_from = 0.5, 0.1", 2, "for which m"),
    ("descriptor", "def join(g, k, alpha=0.5): return torch.cat([alpha * g, (1 - alpha) * k], 1)", 3, "their lengths"),
    ("descriptor", "def join(g, k, alpha=0.5):\n"
     "    return torch.cat([(1 - alpha) * F.normalize(g), alpha * F.normalize(k)], 1)", 3, "exchanged"),
    ("descriptor", "def join(g, k, alpha=0.5):\n"
     "    return torch.cat([alpha * F.normalize(g), alpha * F.normalize(k)], 1)", 3, "1 - alpha"),
    ("descriptor", "def join(g, k, alpha=0.5):\n"
     "    return F.normalize(torch.cat([alpha * F.normalize(g), (1 - alpha) * F.normalize(k)], 1))", 3, "*parts*"),
    ("descriptor", "def join(g, k, alpha=0.5):\n"
     "    return torch.cat([alpha * F.normalize(g), (1 - alpha) * F.normalize(k)])", 3, "side by side"),
    ("descriptor", "def join(g, k, alpha=0.5):\n    g, k = (x / x.norm(dim=1, keepdim=True) for x in (g, k))\n"
     "    return torch.cat([alpha * g, (1 - alpha) * k], 1)", 1, "NaN"),
    ("pythagoras", "def joined_distance(a, b, alpha=0.5): return alpha * a + (1 - alpha) * b", 2, "*squares*"),
    ("pythagoras", "def joined_distance(a, b, alpha=0.5): return alpha**2 * a**2 + (1 - alpha) ** 2 * b**2", 2,
     "take the root"),
    ("pythagoras", "def joined_distance(a, b, alpha=0.5): return (alpha * a**2 + (1 - alpha) * b**2).sqrt()", 2,
     "weights are squared"),
    ("control", CHOICE % ("a", "d", "b"), 2, "two things at once"),
    ("control", CHOICE % ("c", "c", "b"), 2, "any two networks"),
    ("control", CHOICE % ("c", "d", "e"), 2, "all the time"),
    ("verdict", VERDICT + "    return 'the mask' if a[0] > 0 else 'nothing shown'", 3, "not the mask"),
    ("verdict", VERDICT + "    return 'the mask' if b[0] > 0 else 'a second network' if c[0] > 0 else 'undecided'", 3,
     "nothing is shown"),
    ("verdict", VERDICT + "    if a[0] <= 0: return 'nothing shown'\n"
     "    return 'the mask' if b[0] > 0 else 'a second network'", 3, "neither the mask nor company"),
    ("verdict", VERDICT + "    if a[0] < 0: return 'nothing shown'\n"
     "    return 'the mask' if b[0] > 0 else 'a second network' if c[0] > 0 else 'undecided'", 1, "ends at zero"),
    ("verdict", VERDICT + "    if sum(a) <= 0: return 'nothing shown'\n"
     "    return 'the mask' if sum(b) > 0 else 'a second network' if sum(c) > 0 else 'undecided'",
     3, "nothing is shown"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", WRONG, ids=[f"{i}-{c[0]}" for i, c in enumerate(WRONG)])
def test_a_wrong_answer_loses_its_points(case):
    loses("feature_mask", *case)
