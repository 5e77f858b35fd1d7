"""Stylizes collections of photos with `nst_ops`: an Apache Beam pipeline and the `nst` command."""
