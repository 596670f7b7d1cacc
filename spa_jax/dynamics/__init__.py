"""Looking at alignment: plots of how cosines and accuracy evolve."""
