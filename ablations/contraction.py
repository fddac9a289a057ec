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
# # How many contraction units should a block have?
#
# Table 6 of the paper: the released definitions, k = 1, 2 and 3, at width 0.25. In the paper, two exceed one by 1.0
# point and three by 1.1 on ImageNet. Here: photographs of solar cells, with MobileNetV2 at the same multiply-adds.
# The judged metric is top-1, as in the paper, chosen before the runs.

# %% tags=["parameters"]
source = "."  # or "../runs", a CSV file, "wandb:ENTITY/PROJECT"

# %%
from hbo.analysis import figures, results, study, tables

it = study.read("contraction", source=source)
beside = study.read("contraction", "mobilenetv2", source=source, baseline="mobilenetv2")
it.table()

# %%
tables.paper_table(6, results.load(source, "contraction"))

# %%
figures.accuracy(beside, "k")

# %%
it.differences()

# %% [markdown]
# ## Verdict

# %%
it.verdict()

# %% [markdown]
# The release changes three things at once between k = 1 and the others; in `contraction_uniform` only k varies.
#
# ## Details
#
# Balanced accuracy, since 69 % of the photographs have the same class; the difference image by image; cost; learning curves.

# %%
it.differences("balanced_accuracy")

# %%
it.images()

# %%
figures.accuracy_cost(beside)

# %%
figures.learning_curves(beside)

# %%
it.provenance()
