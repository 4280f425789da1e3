"""The training engine's data path beside the usual loader, in one run on one machine.

Usual: JPEG files, decoded by PIL, torchvision's transforms image by image, a DataLoader with two workers. Ours: the
same images as uint8 in memory, augmented in batches where they are. Both flip, pad and crop, erase and normalise, at
256 x 128. On a GPU the batches are made on it.
"""

from __future__ import annotations

import io
import os

import numpy as np
import pytest
import torch
from measuring import MIB, compare, keep
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as T

from cdimlib.data import Split
from cdimlib.data.augment import IMAGENET_MEAN, IMAGENET_STD, PersonInput
from cdimlib.data.samplers import PlainSampler, generator_for
from cdimlib.identities import identity_objective, resident_batches
from cdimlib.models.midlevel import PersonFusion
from cdimlib.results import peak_memory
from cdimlib.training import TrainConfig, autocast, fit, pick_device

COUNT = int(os.environ.get("CDIM_BENCH_IMAGES", 512))
PIXELS, BATCH, PAD, WORKERS = (256, 128), 64, 10, 2


@pytest.fixture(scope="module")
def split():
    """Images with the statistics of photographs as far as a decoder cares: large patches with grain."""
    rng = np.random.default_rng(0)
    images = np.empty((COUNT, 3, *PIXELS), dtype=np.uint8)
    for image in images:
        small = Image.fromarray(rng.integers(0, 256, (16, 8, 3), dtype=np.uint8))
        patches = np.asarray(small.resize(PIXELS[::-1], Image.Resampling.BICUBIC), dtype=np.int16)
        image[:] = (patches + rng.normal(0, 8, patches.shape)).clip(0, 255).astype(np.uint8).transpose(2, 0, 1)
    return Split(torch.from_numpy(images), np.arange(COUNT) % 64, np.zeros(COUNT, int))


class Files(Dataset):
    """A folder of JPEG files and the usual transforms."""

    def __init__(self, folder, split):
        self.paths, self.labels = [], split.ids
        for i, image in enumerate(split.images):
            self.paths.append(folder / f"{i:05d}.jpg")
            Image.fromarray(image.numpy().transpose(1, 2, 0)).save(self.paths[-1], quality=90)
        self.transform = T.Compose([
            T.RandomHorizontalFlip(), T.Pad(PAD), T.RandomCrop(PIXELS), T.ToTensor(),
            T.Normalize(IMAGENET_MEAN, IMAGENET_STD), T.RandomErasing(0.5),
        ])  # fmt: skip

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        with Image.open(self.paths[i]) as image:
            return self.transform(image.convert("RGB")), self.labels[i]


def test_data_path(split, tmp_path):
    """Images a second of one epoch, first batch to last."""
    device, view = pick_device(), PersonInput(PIXELS, pad=PAD, erase=0.5)
    files, sampler, images = Files(tmp_path, split), PlainSampler(split, BATCH), split.images.to(device)

    def usual(workers):
        shapes = [len(batch.to(device)) for batch, _ in DataLoader(files, BATCH, True, num_workers=workers)]
        assert sum(shapes) == COUNT

    def ours():
        for step in range(sampler.steps_per_epoch):
            index = torch.as_tensor(sampler(0, step), device=device)
            batch = view.training(images.index_select(0, index), generator_for(0, step))
        assert batch.shape == (BATCH, 3, *PIXELS)
        if device.type == "cuda":
            torch.cuda.synchronize()

    ours()  # warm
    stored, decoded = sum(p.stat().st_size for p in files.paths) / MIB, split.images.numel() / MIB
    compare(
        f"Data path on {device}, {torch.get_num_threads()} thread(s): {COUNT} images of {PIXELS[0]} x {PIXELS[1]}, "
        f"batches of {BATCH} (as uint8 {decoded:.0f} MiB, as files {stored:.0f} MiB)",
        {
            f"files, PIL, {WORKERS} workers": lambda: usual(WORKERS), "files, PIL, no workers": lambda: usual(0),
            "resident uint8, batched": ours,
        },
        each=(COUNT, "images"),
    )  # fmt: skip


def test_training_step(split):
    """Seconds of data and of the model, ResNet-18; beside training on one batch that never changes."""
    device = pick_device()
    gpu = device.type == "cuda"
    warm, steps, size = (10, 60, BATCH) if gpu else (1, 3, 16)
    batches, sampler = resident_batches(split, PersonInput(PIXELS, pad=PAD, erase=0.5), size, device=device)
    fixed = batches(0, 0)
    rows = {}
    for name, source in (("resident, augmented", batches), ("one fixed batch", lambda seed, step: fixed)):
        model = PersonFusion(sampler.classes, (), backbone="resnet18", pixels=PIXELS)
        model = model.to(device, memory_format=torch.channels_last)
        for count in (warm, steps):
            history = fit(model, source, identity_objective(), TrainConfig(count, 3.5e-4, "adamw"), progress=False)
        rows[name] = (history.data_seconds, history.model_seconds)
    with autocast(device, "auto"):
        precision = "bf16" if torch.is_autocast_enabled(device.type) else "fp32"
    table = []
    for name, (data, net) in rows.items():
        each = 1e3 / (steps * size)
        table.append({"name": name, "images/s": 1e3 / each / (data + net), "data ms/image": data * each,
                      "model ms/image": net * each, "data (%)": 100 * data / (data + net)})  # fmt: skip
    # On a CPU the share of the data says more than two timings of seconds each.
    keep(f"Training ResNet-18 on {device}, {precision}: {PIXELS[0]} x {PIXELS[1]}, batches of {size}, {steps} steps, "
         f"peak {peak_memory(device) or 0:.0f} MiB", table)  # fmt: skip


def test_usual_transforms_agree_in_kind(split):
    """Both paths see the same pixels: without anything random they give the same tensors."""
    image = split.images[0]
    buffer = io.BytesIO()
    Image.fromarray(image.numpy().transpose(1, 2, 0)).save(buffer, format="PNG")
    usual = T.Compose([T.ToTensor(), T.Normalize(IMAGENET_MEAN, IMAGENET_STD)])(Image.open(buffer))
    torch.testing.assert_close(PersonInput(PIXELS)(image[None])[0], usual, rtol=1e-4, atol=1e-4)
