"""Sweeps without a server: W&B's own sweep files, planned, run on one machine or on SLURM, and watched."""
