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
# # How many contraction units should a block have, on photographs of objects?
#
# Table 6 on CIFAR-10 at 64 x 64, 1,000 images per class: k = 1, 2 and 3 as released, and k = 0 to 3 uniform, which treats every k
# alike; k = 0 contracts nothing. The question was frozen before the first run: k = 2 against 1 and 3 as released, with a margin of 1
# point (primary). The uniform arms are exploratory.

# %% tags=["parameters"]
source = "."  # or "../runs", a CSV file, "wandb:ENTITY/PROJECT"

# %%
from hbo.analysis import figures, study

it = study.read("table6_cifar10", source=source)
it.table()

# %%
it.differences()

# %%
figures.accuracy(it, "k")

# %%
figures.accuracy_cost(it)

# %%
figures.learning_curves(it)

# %% [markdown]
# ## Verdict

# %%
it.verdict()

# %%
it.provenance()
