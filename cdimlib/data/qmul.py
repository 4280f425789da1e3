"""Reader for the QMUL FG-SBIR database: shoes, chairs and handbags as edge maps and sketches.

Files, per category, as the authors' public repository lays them out::

    <root>/shoes/shoes_{sketch,edge}_db_{train,test}.mat   key "data", uint8 [N, 256, 256]
    <root>/shoes/shoes_annotation.json                     {"train": {"triplets": [A][P][2]}, "test": ...}

Photos enter the networks as grey *edge maps*; the colour photos are not needed. See Yu et al., "Sketch me that shoe".
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from scipy.io import loadmat

from .benchmark import PHOTO, SKETCH, Benchmark, Split
from .paths import DataNotFound, cache_dir, find_root

#: identities in (train, test), midlevel-fusion, Table 1
COUNTS = {"shoes": (304, 115), "chairs": (200, 97), "handbags": (400, 168)}
CATEGORIES = tuple(COUNTS)
ADDRESS = (
    "https://raw.githubusercontent.com/yuqian1023/Deep_SBIR_tf/7cad9b22f04deb1dbdeebd469e0d86c5ef67edc1/data/"
)
SHA256 = {
    "chairs/chairs_annotation.json": "559859e80991856334fd3ee84408a4d225255b1017b029aa95b95784a672a917",
    "chairs/chairs_edge_db_test.mat": "d429cd73c92c1a6ceef3262f18a0c9acc135a4e8136fa04fbdd0bf4bc7a1be8a",
    "chairs/chairs_edge_db_train.mat": "4f21547d8c4466fcd86746d003ac148aa26bee9e834bfc341a40c62318b1c6a2",
    "chairs/chairs_sketch_db_test.mat": "ebe92e8826ffc2011ad420e94a9bb5cffbe2ea0fc72908480c062909d77bc237",
    "chairs/chairs_sketch_db_train.mat": "6d50d1aef109c7514439e1527735455596728aa973e2914e64a8850789d8f89f",
    "handbags/handbags_edge_db_test.mat": "11046166a2849ff819bd7536561b723227db7fbc5e3be7b9e1fb8952e8f2689a",
    "handbags/handbags_edge_db_train.mat": "9cb6d640a7d0eb3eae98d63107bacd22d1391b70089ff3b78ca479f5b928a3c2",
    "handbags/handbags_sketch_db_test.mat": "1740095eaec5c58acca57c9331d30726c0199bbf8d14c49aab3c07ef40bf68af",
    "handbags/handbags_sketch_db_train.mat": "813ed639dd87872d6f512ba234f9d47d2744ddf63ac442336a722cc9d1899c05",
    "shoes/shoes_annotation.json": "391ecb273e2f55b8cace9922caae120ba9e93b5a13d9f467961901142410ebd9",
    "shoes/shoes_edge_db_test.mat": "34ddbcec5f14e0b358b537a82063a2026156da0f079a8a39e0839ea475369fd3",
    "shoes/shoes_edge_db_train.mat": "ca1744d77c1674862e67d2f3fa4b07ff4d4a587017a4096275e977d3c7d73cc4",
    "shoes/shoes_sketch_db_test.mat": "5f66f4801287c79600c7272c1072a878046536d1d24555230493f4aec4c2c065",
    "shoes/shoes_sketch_db_train.mat": "7e6d238778fed20226b9fa4e93747555862a5f695305e865fa90c65a22469dbe",
}
FOLDERS = ("qmul-fgsbir", "Deep_SBIR_tf/data")
MEND = (
    "Call cdimlib.data.qmul.download() to fetch the authors' public copy (about 30 MB), "
    "or pass root= (or set CDIM_DATA) to a folder that holds qmul-fgsbir/shoes, /chairs and /handbags."
)


def download(target: str | Path | None = None, address: str = ADDRESS) -> Path:
    """Fetch the database from its authors' repository, every file checked against its SHA-256; needs ``pooch``.

    Returns the folder. A file that does not match its hash is deleted and reported (ValueError), never kept; a file
    that cannot be fetched is reported with its address (OSError).
    """
    try:
        import pooch
    except ImportError as error:
        raise ImportError("qmul.download() needs the package pooch: pip install pooch") from error
    target = Path(target) if target else cache_dir() / FOLDERS[0]
    fetcher = pooch.create(path=target, base_url=address, registry={k: f"sha256:{v}" for k, v in SHA256.items()})
    for name in SHA256:
        try:
            fetcher.fetch(name, progressbar=False)
        except OSError as error:
            raise OSError(
                f"{name} could not be fetched from {address} ({error}): try again later, or copy the files yourself "
                "and pass root= (or set CDIM_DATA)"
            ) from error
    return target


def _images(path: Path, count: int) -> torch.Tensor:
    if not path.is_file():
        raise DataNotFound(f"{path} is missing. {MEND}")
    try:
        data = loadmat(path)["data"]
    except KeyError:
        raise ValueError(f"{path} has no variable 'data': it is not a file of the QMUL database") from None
    except Exception as error:
        raise ValueError(f"{path} cannot be read as a .mat file ({error}): delete it and fetch it again") from error
    if data.shape != (count, 256, 256) or data.dtype != np.uint8:
        raise ValueError(
            f"{path} holds {data.dtype} {data.shape}, expected uint8 {(count, 256, 256)}: delete it and fetch it again"
        )
    return torch.from_numpy(data)[:, None]


def load_category(category: str, root: str | Path | None = None) -> Benchmark:
    """One category as a benchmark: query = test sketches, gallery = test edge maps; train holds both domains.

    Image i of the edge maps and image i of the sketches show one object. Training identities are 0 .. n-1, test
    identities follow. ``triplets`` are the annotators' judgements on training sketches (shoes and chairs only).
    """
    if category not in COUNTS:
        raise ValueError(f"unknown category {category!r}: choose from {', '.join(CATEGORIES)}")
    base = find_root(f"qmul/{category}", FOLDERS, root, mend=MEND)
    folder = base / category if (base / category).is_dir() else base
    parts, start = {}, 0
    for split, count in zip(("train", "test"), COUNTS[category], strict=True):
        ids = np.arange(start, start + count)
        start += count
        for domain, cam in (("edge", PHOTO), ("sketch", SKETCH)):
            images = _images(folder / f"{category}_{domain}_db_{split}.mat", count)
            parts[split, domain] = Split(images, ids, np.full(count, cam))
    return Benchmark(
        f"qmul/{category}",
        train=Split.join([parts["train", "edge"], parts["train", "sketch"]]),
        query=parts["test", "sketch"],
        gallery=parts["test", "edge"],
        triplets=None if category == "handbags" else read_triplets(category, folder),
        categories=(category,),
        note="QMUL FG-SBIR database, edge maps and sketches, 256 x 256",
    )


def read_triplets(category: str, folder: str | Path) -> np.ndarray:
    """Human judgements on the training sketches: int64 [anchors, 135, 2] of (preferred, other) identities.

    The file published for handbags is a byte-for-byte copy of the one for shoes, so it is refused: for handbags the
    paper pairs the true match with any other photo (Sec. 4.1).
    """
    if category == "handbags":
        raise ValueError(
            "there are no human triplets for handbags: the published handbags_annotation.json is a copy of the shoes' "
            "file (304 anchors for 400 handbags). Train on (true match, any other photo), as the paper does."
        )
    path = Path(folder) / f"{category}_annotation.json"
    if not path.is_file():
        raise DataNotFound(f"{path} is missing. {MEND}")
    try:
        triplets = np.asarray(json.loads(path.read_text())["train"]["triplets"], dtype=np.int64)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not the annotation file of {category} ({error}): fetch it again") from error
    if triplets.shape != (COUNTS[category][0], 135, 2) or triplets.min() < 0 or triplets.max() >= COUNTS[category][0]:
        raise ValueError(f"{path}: expected triplets of shape {(COUNTS[category][0], 135, 2)}, got {triplets.shape}")
    return triplets
