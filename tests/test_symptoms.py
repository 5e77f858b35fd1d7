"""`docs/symptoms.md`: nst takes its commands, its settings are there, and so are its pictures."""

import re

from PIL import Image

from benchmarks.symptoms import PAGE, symptoms
from pipeline.config.reference import setting_names

from .shell_commands import ROOT, check_command

TEXT = PAGE.read_text()
ALL = list(symptoms())


def test_every_section_has_its_pair():
    assert [symptom.title for symptom in ALL] == re.findall(r"^## (.+)$", TEXT, re.MULTILINE)
    assert len(ALL) == 8


def test_commands_are_valid():
    for symptom in ALL:
        for words, output in ((symptom.before, "before.png"), (symptom.after, "after.png")):
            check_command(words)
            assert words[0] == "stylize" and all((ROOT / name).exists() for name in words[1:3])
            assert words[words.index("-o") + 1] == output
        assert symptom.before[1:3] == symptom.after[1:3]  # two settings, not two pictures


def test_settings_are_there():
    turned = re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE)
    assert len(turned) > 20 and set(turned) <= set(setting_names())


def test_pictures_are_pairs_and_small():
    shown = [symptom.picture for symptom in ALL]
    assert sorted(shown) == sorted((PAGE.parent / "symptoms").iterdir())
    assert sum(picture.stat().st_size for picture in shown) < 700_000
    for picture in shown:
        with Image.open(picture) as image:
            assert 2 * 256 < image.width < 2 * 320 and image.height <= 320
