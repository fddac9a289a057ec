# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     name: python3
#     display_name: Python 3
#     language: python
# ---

# %% [markdown]
# # How much do trained weights help with 240 photographs?
#
# Automobiles and trucks of CIFAR-10, 120 of each for training, 2,000 others for validation. HBONet of width 0.25: the recipe for small folders from the
# weights of a classifier of six other classes (25 epochs), the same from random weights (100 epochs), and the paper's rate at a batch
# of 64 without a warm-up. The primary metric is top-1. In the tables the first arm's name has its `backbone`, the second's `lr=0.025`, the
# third's `batch=64`.

# %% tags=["parameters"]
source = "."  # or "../runs", a CSV file, "wandb:ENTITY/PROJECT"

# %%
from hbo.analysis import figures, study

it = study.read("few_photographs", source=source)
it.table()

# %%
it.differences()

# %%
figures.learning_curves(it)

# %% [markdown]
# ## Verdict

# %%
it.verdict()

# %%
it.provenance()
