"""Fuzzes the image reader with Atheris, guided by coverage of our code and Pillow's Python code:

    python -m tests.fuzz.fuzz_images -max_total_time=300 -rss_limit_mb=3000 CORPUS_FOLDER

An input is fine if it is read or refused with an `InputError`; the fixed cases of what was found
are in `tests/nst_ops/test_images.py`.
"""

import sys

import atheris

with atheris.instrument_imports(include=["PIL", "nst_ops"], enable_loader_override=False):
    from PIL import Image

    Image.init()  # imports the readers of all formats
    from tests.fuzz.test_images import check_image

if __name__ == "__main__":
    atheris.Setup(sys.argv, check_image)
    atheris.Fuzz()
