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
# Table 6 of the paper: k = 1, 2 and 3 as released, at width 0.25. On ImageNet the paper finds k = 2 better than k = 1 by
# 1.0 point, and better than k = 3 by 1.1. Here: photographs of solar cells, with MobileNetV2 at the same multiply-adds.
# The primary metric, chosen before the runs, is top-1, as in the paper.

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
# Balanced accuracy, as 69 % of the photographs have the same class; intervals over images; cost; learning curves.

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
