"""Completion as the shells themselves do it; of those that are not here, nothing is known."""

import shutil
import subprocess

import pytest

from pipeline.cli.completion import completion_script
from pipeline.cli.main import _parser

WORDS = [
    ("nst ", "validate", "run"),
    ("nst st", "stylize", "run"),
    ("nst run --ma", "--manifest", "--config"),
    ("nst run --log_format ", "json", "--config"),
    ("nst run --log_format j", "json", "text"),
    ("nst run --set si", "size=", "steps="),
    ("nst run --set che", "checkpoint_seconds=", "size="),
    ("nst settings si", "size", "steps"),
    ("nst settings che", "checkpoint_seconds", "size"),
    ("nst run --manifest ma", "manifest.csv", "photos"),
    ("nst runs ph", "photos", "manifest.csv"),
    ("nst stylize ma", "manifest.csv", "photos"),
    ("nst completion ", "fish", "run"),
]


def complete(shell, line):
    """What the shell offers for a line."""
    script = completion_script(_parser(), shell)
    if shell == "bash":
        words = " ".join(f"'{word}'" for word in line.split(" "))
        script += f"\nCOMP_WORDS=({words}); COMP_CWORD={line.count(' ')}; _nst\n"
        script += 'printf "%s\\n" "${COMPREPLY[@]}"'
    else:
        script += f"\ncomplete -C '{line}'"
    done = subprocess.run([shell, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [offer.partition("\t")[0].rstrip("/") for offer in done.stdout.splitlines()]


@pytest.mark.parametrize("shell", ["bash", "fish"])
@pytest.mark.parametrize(("line", "wanted", "other"), WORDS)
def test_words_are_completed(tmp_path, monkeypatch, shell, line, wanted, other):
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "manifest.csv").touch()
    (tmp_path / "photos").mkdir()
    offered = complete(shell, line)
    assert wanted in offered
    # Of a word that is begun, or of the kind that is asked for.
    assert line.endswith(" ") and wanted == "validate" or other not in offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_can_be_read(shell):
    script = completion_script(_parser(), shell)
    assert "checkpoint_seconds=" in script and "--log_format" in script
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here")
    done = subprocess.run([shell, "-n"], input=script, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_bash_is_told(tmp_path):
    script = completion_script(_parser(), "bash")
    done = subprocess.run(["bash", "-c", f"{script}\ncomplete -p nst"], capture_output=True)
    assert done.stdout == b"complete -o bashdefault -F _nst nst\n"
