"""Shows people what came of a run: the HTML report, and comparisons of runs."""
