"""Steps of `benchmarks/gpu/run`, each a module that runs by itself."""

import os
import sys

# Wheels that travel with the checkout come after what the machine has: its compiled packages fit each other.
if _site := os.environ.get("CATHODEFLOW_GPU_SITE"):
    sys.path.append(_site)
