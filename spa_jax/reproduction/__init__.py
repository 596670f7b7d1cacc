"""Reproducing the paper's tables: which runs, in which order, and the page that shows them."""
