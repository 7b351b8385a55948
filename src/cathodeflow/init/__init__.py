"""A first configuration for own data: `cathodeflow init` reads names and headers and writes what they say."""
