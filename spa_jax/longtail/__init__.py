"""Long-tailed learning: losses, margins, re-weighting, and the parts of GLMC and of a fixed ETF."""
