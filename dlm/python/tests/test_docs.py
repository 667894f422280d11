"""The examples of the documentation run, and have the types that it promises."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PATIENCE, Cluster

ROOT = Path(__file__).parents[3]


def examples() -> list[tuple[str, str]]:
    found = []
    for page in ("docs/python.md", "dlm/python/README.md"):
        for number, code in enumerate(re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.M | re.S)):
            found.append((f"{Path(page).stem}_{number}", code))
    return found


@pytest.mark.parametrize("name, code", examples(), ids=[name for name, _ in examples()])
def test_an_example_runs(cluster: Cluster, name: str, code: str) -> None:
    environment = {**os.environ, "MXLOCK_SOCKET": str(cluster.nodes[0].socket)}
    words = [sys.executable, "-W", "error", "-c", code]
    ended = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert ended.returncode == 0 and ended.stderr == "", ended.stderr
    if "print(" in code:
        assert ended.stdout != ""


def test_the_examples_have_types(tmp_path: Path) -> None:
    assert len(examples()) >= 5
    for name, code in examples():
        (tmp_path / f"{name}.py").write_text(code)
    words = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(tmp_path)]
    ended = subprocess.run(words, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
