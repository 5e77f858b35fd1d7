"""The licence, and what others are owed: in the tree, in the package, from the command."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

import nst_ops

ROOT = Path(__file__).parent.parent


def test_version_tells_the_licence():
    command = [sys.executable, "-m", "pipeline", "--version"]
    done = subprocess.run(command, capture_output=True, text=True)
    version, rights = done.stdout.splitlines()
    assert version == f"nst {nst_ops.__version__}"
    assert all(part in rights for part in ("Apache-2.0", "VGG19", "Simonyan", "CC BY 4.0"))


def test_licence_is_the_whole_text():
    # As the Apache Software Foundation gives it, with one empty line at its top.
    digest = hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest()
    assert digest == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"


def test_notice_names_everything_that_others_made():
    notice = (ROOT / "NOTICE").read_text()
    made = [*(ROOT / "examples/images").iterdir(), *(ROOT / "nst_ops/vgg/data").glob("*.npz")]
    assert len(made) == 9
    assert not [path.name for path in made if path.name not in notice]
    assert "onnxruntime-web" in notice and "Microsoft" in notice
    assert "Simonyan" in notice and "creativecommons.org/licenses/by/4.0" in notice


def test_package_has_both(tmp_path):
    """As setuptools writes its metadata, without building anything."""
    pytest.importorskip("setuptools")
    command = [sys.executable, "setup.py", "-q", "dist_info", "--output-dir", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (metadata,) = tmp_path.glob("*.dist-info/METADATA")
    text = metadata.read_text()
    assert "\nLicense-File: LICENSE\n" in text and "\nLicense-File: NOTICE\n" in text
