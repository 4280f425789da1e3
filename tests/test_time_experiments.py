"""Simulated appearance on the names of images: visits, company, calibration, and what time adds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from cdimlib import results
from cdimlib import time_experiments as te
from cdimlib.retrieval import rank_metrics

VARIANTS = {
    "appearance": ("probability", "", {}, ""),
    "other cameras only": ("other cameras", "", {}, ""),
    "time": ("probability", "time", {"tau": 10.0, "sigma": 10.0, "k": 5}, ""),
    "shuffled": ("probability", "visits", {"tau": 10.0, "sigma": 10.0, "k": 5}, ""),
    "re-ranked": ("re-ranked", "", {}, ""),
    "time, then re-ranked": ("probability", "time", {}, "re-rank"),
}


def town(couples=12, cameras=3, shots=3, seed=0):
    """Couples who pass every camera together, ten minutes apart."""
    rng, rows = np.random.default_rng(seed), []
    for cam in range(cameras):
        for couple, start in enumerate(600 * rng.permutation(couples)):  # the cameras' clocks have nothing in common
            rows += [(2 * couple + who + 1, cam, start + 2 * shot + who) for who in (0, 1) for shot in range(shots)]
    return pd.DataFrame(rows, columns=["id", "cam", "time"]).astype({"time": float})


def test_market_table_reads_a_list_and_a_folder(tmp_path):
    names = ["0002_c1s1_000050_01.jpg", "0002_c1s2_000025_01.jpg", "0002_c1s3_000025_00.jpg",
             "0007_c2s1_000100_01.jpg", "0000_c1s1_000075_01.jpg", "-1_c1s1_000080_01.jpg"]
    (tmp_path / "names.txt").write_text("".join(f"bounding_box_train/{n} 3\n" for n in names) + "  \n\n")
    folder = tmp_path / "images"
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    table = te.market_table(tmp_path / "names.txt")
    assert table.id.tolist() == [2, 2, 2, 7] and table.cam.tolist() == [1, 1, 1, 2]
    assert table.time.tolist() == [2, 4, 5, 4]  # session 1 ends with the distractor's frame 75, session 2 with 25
    assert table.doubled.tolist() == [2, 4, 8, 4]  # 75 + (75 + 25) + 25 frames
    pd.testing.assert_frame_equal(table, te.market_table(folder))


def test_visits_end_with_a_pause():
    table = pd.DataFrame({"id": [1, 1, 1, 2, 1], "cam": [0, 0, 0, 0, 1], "time": [200.0, 0.0, 60.0, 0.0, 0.0]})
    visit = te.visits(table)
    assert visit[1] == visit[2] and len(set(visit)) == 4 and visit.min() == 0 and visit.max() == 3


def test_shuffled_visits_keep_bursts_and_lose_company():
    table = town()
    moved = table.assign(time=te.shuffle_visits(table))
    for _, burst in moved.groupby(te.visits(table)):
        assert np.allclose(np.diff(np.sort(burst.time)), 2)
    starts = [t.groupby(te.visits(table))[["cam", "time"]].min().sort_values(["cam", "time"]) for t in (table, moved)]
    assert np.array_equal(*(s.to_numpy() for s in starts))  # the same starts at each camera
    assert te.company(table, 10, 10)[0] == 1.0
    assert te.company(moved, 10, 10)[0] < 0.5
    assert te.company(table, 10, 10)[1] == pytest.approx(12 / (24 * 23 / 2), abs=1e-9)


def test_company_by_hand():
    """Ann and Bea come together twice; Cid is at both cameras, never near; Dan is at one only."""
    rows = ("a", 0, 0), ("b", 0, 3), ("c", 0, 500), ("d", 0, 1), ("a", 1, 90), ("b", 1, 95), ("c", 1, 99)
    table = pd.DataFrame([(ord(i), c, float(t)) for i, c, t in rows], columns=["id", "cam", "time"])
    together, anyone = te.company(table, near=10, apart=6)
    # near each other at one camera, both seen by the other: ab (0 -> 1), and ab, bc, ac (1 -> 0); only ab comes near
    assert together == pytest.approx(2 / 4)
    # camera 0: ab, ad, bd of six pairs come within 6 s; camera 1: ab and bc of three
    assert anyone == pytest.approx(5 / 9)


def test_queries_are_one_of_each_person_and_camera():
    table = town()
    asked = te.queries(table, 0)
    assert asked.sum() == 24 * 3 and not table[asked].duplicated(["id", "cam"]).any()
    assert (te.queries(table, 1) != asked).any() and np.array_equal(te.queries(table, 0), asked)


def test_simulated_features_share_what_they_should():
    table = town(couples=100)
    features = te.simulate(table, 1.0, 0, shared=0.5)
    assert torch.allclose(features.norm(dim=1), torch.ones(len(table)), atol=1e-5)
    cosine, visit, ids = (features @ features.T).numpy(), te.visits(table), table.id.to_numpy()
    off = ~np.eye(len(table), dtype=bool)
    same, burst = ids[:, None] == ids, visit[:, None] == visit
    assert cosine[~same].mean() == pytest.approx(0, abs=0.01)
    assert cosine[same & ~burst].mean() == pytest.approx(1 / 2, abs=0.02)  # signal 1, noise 1
    assert cosine[burst & off].mean() == pytest.approx(1.5 / 2, abs=0.02)  # and half of that shared
    assert torch.equal(features, te.simulate(table, 1.0, 0)) and not torch.equal(features, te.simulate(table, 1.0, 1))


@pytest.mark.parametrize("level", [30, 70])
def test_calibration_hits_the_level_and_gives_probabilities(level):
    table = town(couples=50)
    noise, a, b = te.calibrate(table, level, pairs=50_000)
    asked, features = te.queries(table, 5), te.simulate(table, noise, 5)
    assert te.judge(features[asked] @ features[~asked].T, table, asked)["acc@1"] == pytest.approx(level, abs=8)
    likely = torch.sigmoid(a * features @ features.T + b)
    cams, ids = table.cam.to_numpy(), table.id.to_numpy()
    other = torch.from_numpy(cams[:, None] != cams)
    same = torch.from_numpy(ids[:, None] == ids)[other].float()
    assert likely[other].mean().item() == pytest.approx(same.mean().item(), rel=0.35)


def test_time_helps_where_couples_walk_and_not_with_their_visits_shuffled(tmp_path):
    runs = [te.run(town(couples=25), "couples", 40, seed, VARIANTS) for seed in (0,)]
    reached = {name: np.mean([r["metrics"][name]["acc@1"] for r in runs]) for name in VARIANTS}
    assert reached["time"] > reached["appearance"] + 5 and reached["time"] > reached["shuffled"] + 5
    assert reached["other cameras only"] >= reached["appearance"]
    path = results.save(runs[0], tmp_path)
    assert path.name == "rank40-simulated-couples-s0.json"
    (kept,) = results.load("time", tmp_path)
    assert kept["config"]["variants"]["time"] == ["probability", "time", {"tau": 10.0, "sigma": 10.0, "k": 5}, ""]
    assert kept["data"]["features"] == "simulated" and max(kept["metrics"]["time"]["first_rank"]) <= 101


def test_judge_agrees_with_rank_metrics():
    table = town()
    asked, rng = te.queries(table, 0), np.random.default_rng(0)
    scores = rng.random((asked.sum(), (~asked).sum()))
    q, g = table[asked], table[~asked]
    expected = rank_metrics(scores, q.id, g.id, q.cam, g.cam)
    assert te.judge(scores, table, asked)["mAP"] == pytest.approx(100 * expected.mean_ap)
