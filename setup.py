"""Packaging; tools are configured in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

VERSION = re.search(r'__version__ = "(.+)"', Path("nst_ops/__init__.py").read_text())[1]
# Networks for phones and browsers: converters, and the runtimes in which each file is tried.
_EXPORT = [
    "ai-edge-litert>=2.3",  # TFLite's runtime, as phones have it; tf.lite's own is to be removed
    "onnxruntime>=1.32",
    "tf2onnx>=1.17",
]

setup(
    name="nst",
    version=VERSION,
    description=(
        "Stylizes collections of photos after paintings: neural style transfer on Apache Beam"
    ),
    long_description=Path("README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    python_requires=">=3.11",
    packages=find_packages(include=["nst_ops*", "pipeline*"]),
    package_data={
        "nst_ops.export": ["photos/*"],
        "nst_ops.network": ["data/*"],
        "nst_ops.vgg": ["data/*"],
        "pipeline.report": ["templates/*"],
        "pipeline.training": ["templates/*"],
        "pipeline.web": ["page/*", "runtime/*"],
    },
    install_requires=[
        "apache-beam>=2.77,<2.78",  # the engine; the wheel's job service must match its SDK
        "h5py>=3.11",  # weights in .keras files, as TensorFlow writes them
        "jinja2>=3.1",  # the HTML report
        "numpy>=2",
        "pillow>=12",  # image files, ICC and EXIF
        "pyarrow>=18",  # metadata and manifests in Parquet
        "pydantic>=2.8",  # settings and their errors
        "PyYAML>=6",
        "rich>=13",  # progress on a terminal
        "shtab>=1.13",  # completion in shells, from the parser; fish since 1.13
        "tensorflow>=2.21,<2.22",
    ],
    extras_require={
        "aws": ["boto3>=1.34"],  # s3://
        "gcp": ["apache-beam[gcp]>=2.77,<2.78"],  # gs://, Dataflow
        "export": _EXPORT,
        "dev": [
            *_EXPORT,
            "boto3>=1.34",
            "hypothesis>=6",  # fuzzing of what users give
            "ipykernel>=6.29",  # runs examples/walkthrough.ipynb
            "matplotlib>=3.9",  # its pictures and curves
            "moto[server]>=5",  # a server that speaks S3
            "nbclient>=0.10",  # a test runs the notebook, as a reader would
            "nbformat>=5.10",
            "pyright>=1.1.390",
            "pytest>=8",
            "ruff>=0.8",
            "selenium>=4.20",  # the report in a real browser
        ],
        "gpu": [
            "nvidia-ml-py>=12",  # counts GPUs and their free memory without TensorFlow
            "tensorflow[and-cuda]>=2.21,<2.22",
        ],
    },
    entry_points={"console_scripts": ["nst = pipeline.cli.main:main"]},
)
