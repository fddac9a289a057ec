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
# # Does the result for k hold on photographs of objects?
#
# CIFAR-10 at 64 x 64, 1,000 images per class and few epochs: k = 1, 2 and 3 as released, and MobileNetV2 at the same
# multiply-adds. Three seeds detect only large differences; the table says how large.

# %% tags=["parameters"]
source = "."  # or "../runs", a CSV file, "wandb:ENTITY/PROJECT"

# %%
from hbo.analysis import figures, study

it = study.read("contraction_cifar10", source=source)
it.table()

# %%
figures.accuracy(it, "k")

# %%
it.differences()

# %% [markdown]
# ## Verdict

# %%
it.verdict()

# %% [markdown]
# ## Details

# %%
it.images()

# %%
figures.accuracy_cost(it)

# %%
figures.learning_curves(it)

# %%
it.provenance()
