"""The workflows of .github: least rights, pinned actions, bounded time, and only commands that exist."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
#: what a job may ask for beyond reading, by workflow
RIGHTS = {"check": set(), "weekly": {"issues"}, "pages": {"pages", "id-token"}}


def load(path: Path) -> dict:
    """A workflow; YAML 1.1 reads the key ``on`` as True."""
    content = yaml.safe_load(path.read_text(encoding="utf8"))
    return {("on" if key is True else key): value for key, value in content.items()}


def steps(path: Path) -> list[dict]:
    return [step for job in load(path)["jobs"].values() for step in job["steps"]]


def commands(path: Path) -> str:
    return "\n".join(step["run"] for step in steps(path) if "run" in step)


def test_there_are_three():
    assert {path.stem for path in FILES} == set(RIGHTS)
    assert "pull_request" in load(FILES[0])["on"] and "schedule" in load(FILES[2])["on"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_least_rights_and_bounded_time(path):
    workflow = load(path)
    assert workflow["permissions"] == {"contents": "read"} and workflow["concurrency"]["group"]
    assert "pull_request_target" not in workflow["on"], "it would run a stranger's code with our rights"
    asked = set()
    for name, job in workflow["jobs"].items():
        assert 0 < job["timeout-minutes"] <= 150, name
        asked |= job.get("permissions", {}).keys()
    assert asked == RIGHTS[path.stem]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_actions_are_pinned_by_hash(path):
    """By the full commit, with the version beside it for people; checkouts leave no token behind."""
    lines = [line for line in path.read_text(encoding="utf8").splitlines() if "uses:" in line]
    assert len(lines) == sum("uses" in step for step in steps(path)) > 0
    for line in lines:
        assert re.fullmatch(r"\s*(- )?uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line
    for step in steps(path):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_one_action_one_hash():
    found = {use.split(" ")[0] for path in FILES for use in re.findall(r"uses: (\S+)", path.read_text(encoding="utf8"))}
    assert len({use.split("@")[0] for use in found}) == len(found)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_commands_exist(path, root):
    """Targets are in the Makefile, scripts in the tree, and the shell can read every command."""
    targets = set(re.findall(r"(?m)^([a-z][a-z-]*):(?!=)", (root / "Makefile").read_text(encoding="utf8")))
    said = commands(path)
    assert set(re.findall(r"\bmake ([a-z][a-z-]*)", said)) <= targets
    assert all((root / script).is_file() for script in re.findall(r"\btools/\w+\.(?:py|sh)", said))
    for step in steps(path):
        if "run" in step:
            plain = re.sub(r"\$\{\{.*?\}\}", "x", step["run"])
            assert subprocess.run(["bash", "-n"], input=plain, text=True).returncode == 0, step["run"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_text_of_strangers_in_a_command(path):
    """What others may write (titles, branch names) reaches a shell only through the environment."""
    assert not re.search(r"\$\{\{\s*(github\.(event|head_ref|base_ref|ref_name)|inputs)", commands(path))


def test_the_check_runs_all_that_make_test_runs(root):
    recipe = re.search(r"(?m)^test:.*\n((?:\t.*\n)+)", (root / "Makefile").read_text(encoding="utf8"))[1]
    said = commands(FILES[0])
    assert set(re.findall(r"test-[a-z]+", recipe)) <= set(re.findall(r"make ([a-z-]+)", said))
    assert "tools/assignments.py --check" in said and "make lint" in said
