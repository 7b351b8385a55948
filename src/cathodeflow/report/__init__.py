"""One page with the results of a run: what was asked, found and checked, with figures, data and versions."""
