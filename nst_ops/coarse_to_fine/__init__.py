"""The loop over scales, from the coarsest to the result's own: schedule, state, reports."""
