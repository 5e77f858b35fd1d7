"""What a run left behind, for people: the HTML report and comparisons of runs."""
