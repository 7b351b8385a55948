"""Properties of labelled microstructures: fractions, surfaces, transport, sizes and correlations."""
