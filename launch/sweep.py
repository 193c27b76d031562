#!/usr/bin/env python
"""`malt_jax_sweep` (malt_jax/experiments/grid.py) in this checkout, wherever it is called from.

python launch/sweep.py --config=configs/quickstart.py --name=rates --set seed=0,1
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
os.chdir(ROOT)  # jobs lie in runs/, and targets are scripts of launch/
sys.path.insert(0, str(ROOT))

from malt_jax.experiments import grid  # noqa: E402

raise SystemExit(grid.main())
