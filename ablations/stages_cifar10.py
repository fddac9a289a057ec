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
# # The block or the stage widths: which makes HBONet better?
#
# HBONet differs from MobileNetV2 in two ways: in its block, and in the widths, depths, strides and expansion of its stages. Here is each
# block in each stage table, at equal multiply-adds, on CIFAR-10 at 64 x 64, 1,000 images per class:
#
# | | HBONet's stages | MobileNetV2's stages |
# | --- | --- | --- |
# | harmonious bottlenecks, k = 1 | hbonet | mobilenetv2_hbo |
# | inverted residuals | hbonet_ir | mobilenetv2 |
#
# The four comparisons along a row or a column were frozen as primary before the first run, with a margin of 1 point.

# %% tags=["parameters"]
source = "."  # or "../runs", a CSV file, "wandb:ENTITY/PROJECT"

# %%
from hbo.analysis import figures, study

it = study.read("stages_cifar10", source=source)
it.table()

# %%
figures.accuracy_cost(it)

# %%
it.differences()

# %%
figures.forest(it.comparisons(), "top-1", it.asked.share, arms=it.arms)

# %% [markdown]
# ## Verdict

# %%
it.verdict()

# %% [markdown]
# ## Details
#
# Accuracy against parameters, and learning curves. At equal multiply-adds a network with harmonious bottlenecks has more parameters.

# %%
figures.accuracy_cost(it, "params")

# %%
figures.learning_curves(it)

# %%
it.provenance()
