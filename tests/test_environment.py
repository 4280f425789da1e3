"""``python -m cdimlib``: the check of an environment, and the mend that it names for each fault."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest
from packaging.requirements import Requirement

from cdimlib import __main__ as check

REQUIRES = ["numpy>=1.26", "torch>=99", "a-thing-nobody-made>=2", 'faiss-cpu>=99; extra == "faiss"']


def installed() -> bool:
    """Whether this is an installation, and not a folder on the path."""
    try:
        return bool(metadata.version("cdimlib"))
    except metadata.PackageNotFoundError:
        return False


@pytest.mark.skipif(not installed(), reason="cdimlib is imported from a folder here: pip install -e .")
def test_this_environment_is_sound():
    done = subprocess.run([sys.executable, "-m", "cdimlib"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("The book's code runs here.", "torch ", "profile smoke"):
        assert words in done.stdout


def test_missing_and_old_packages_are_named_with_their_mend(monkeypatch, capsys):
    class Meta:
        def get_all(self, key):
            return ["faiss"]

    monkeypatch.setattr(check.metadata, "requires", lambda name: REQUIRES)
    monkeypatch.setattr(check.metadata, "metadata", lambda name: Meta())
    faults, remarks = check.packages()
    assert len(faults) == 2 and len(remarks) == 1
    assert f"torch is {metadata.version('torch')}, not >=99" in faults[0] and 'pip install "torch>=99"' in faults[0]
    assert faults[1] == 'a-thing-nobody-made is missing: pip install "a-thing-nobody-made>=2"'
    assert 'without the extra "faiss"' in remarks[0] and 'pip install "cdimlib[faiss]"' in remarks[0]
    assert check.main() == 1
    said = capsys.readouterr().out
    assert said.count("NOT IN ORDER") == 2 and "does not run here yet" in said and "real data" not in said


def test_a_library_that_is_only_a_folder(monkeypatch):
    def gone(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(check.metadata, "requires", gone)
    (fault,), remarks = check.packages()
    assert fault.endswith("not installed: pip install -e . in its root") and not remarks


def test_torch_and_torchvision_that_do_not_match(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    (fault,), remarks = check.device()
    assert "do not work together" in fault and fault.endswith("--force-reinstall torch torchvision") and not remarks


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [("CDIM_PROFILE", "fast", "CDIM_PROFILE must be one of"), ("CDIM_DATA", "/no/such/folder", "not a folder")],
)
def test_settings_that_cannot_be(name, value, words, monkeypatch):
    monkeypatch.setenv(name, value)
    (fault,), remarks = check.data()
    assert words in fault and any(line.startswith("real data at hand") for line in remarks)


def test_a_notebook_says_which_package_it_misses(monkeypatch):
    import cdimlib

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="torch is not installed here.*%pip install torch, then run this cell again"):
        cdimlib.start()


@pytest.mark.parametrize("profile", ["smoke", "demo", "full"])
@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_a_notebook_says_what_to_expect(monkeypatch, capsys, profile, kind):
    """On every device and in every profile."""
    import torch

    import cdimlib
    from cdimlib import training

    monkeypatch.setenv("CDIM_PROFILE", profile)
    monkeypatch.setattr(training, "pick_device", lambda: torch.device(kind))
    monkeypatch.setattr(training, "device_name", lambda device: "this one")
    assert cdimlib.start() == torch.device(kind)
    first, second = capsys.readouterr().out.splitlines()
    assert f"this one | profile {profile}" in first and second.endswith(".")


def test_versions_are_compared_as_versions():
    assert check.wrong(Requirement("numpy>=1.9")) == "" and check.wrong(Requirement("numpy<1")).startswith("numpy is ")
