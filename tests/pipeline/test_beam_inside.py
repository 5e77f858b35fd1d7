"""What `runs.beam_options` takes of Beam's inside, for want of a public way: if a new version of
Beam changes it, this is where one is told.
"""

import argparse

import pytest
from apache_beam.options import pipeline_options
from apache_beam.portability.api import beam_provision_api_pb2 as provision
from apache_beam.runners.portability.fn_api_runner import FnApiRunner, fn_runner
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.transforms import environments

from pipeline.errors import ConfigError
from pipeline.runs import beam_options

from .conftest import settings


def test_beam_lets_its_arguments_be_parsed():
    """`PipelineOptions` itself ignores what no group of options knows, and positional words."""
    parser = pipeline_options._BeamArgumentParser(add_help=False, allow_abbrev=False)
    assert isinstance(parser, argparse.ArgumentParser)
    for group in pipeline_options.PipelineOptions.__subclasses__():
        group._add_argparse_args(parser)
    known, unknown = parser.parse_known_args(["--direct_num_workers=3", "--nonsense", "word"])
    assert known.direct_num_workers == 3 and unknown == ["--nonsense", "word"]
    with pytest.raises(ConfigError, match="--nonsense word"):
        beam_options.beam_options(["--nonsense", "word"], settings(), 1)


def test_beams_own_runner_starts_our_processes_with_the_options():
    arguments = ["--direct_num_workers=2", "--s3_endpoint_url=http://store"]
    options = beam_options.beam_options(arguments, settings(), 10)
    runner = beam_options._runner(options)
    assert isinstance(runner, FnApiRunner)
    environment = runner._default_environment
    assert isinstance(environment, environments.SubprocessSDKEnvironment)
    assert b"-P -m pipeline.workers.sdk_worker" in environment.command_string.encode()
    told = runner._provision_info
    assert isinstance(told, fn_runner.ExtendedProvisionInfo)
    assert "http://store" in str(told.provision_info.pipeline_options)


def test_options_travel_as_beam_encodes_them():
    encoded = JobServiceHandle.encode_pipeline_options({"s3_endpoint_url": "http://store"})
    assert "http://store" in str(provision.ProvisionInfo(pipeline_options=encoded))
