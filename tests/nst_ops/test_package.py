import subprocess
import sys

import nst_ops


def test_public_names_stay_what_they_are():
    """A module of a function's name would take its place once it is imported."""
    for name in nst_ops.__all__:
        first = getattr(nst_ops, name)
        assert getattr(nst_ops, name) is first
        assert isinstance(first, str) or callable(first), name


def test_settings_and_files_need_no_tensorflow():
    code = (
        "import sys, nst_ops.settings, nst_ops.coarse_to_fine.schedule, nst_ops.images.codec;"
        "import pipeline.cli.main;"
        "assert not {'tensorflow', 'keras', 'apache_beam'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
