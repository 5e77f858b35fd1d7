"""The `nst` command: arguments, what the commands do, what people see of it."""
