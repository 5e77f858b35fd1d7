"""Collections of photos through `nst_ops`, as an Apache Beam pipeline, and the `nst` command."""
