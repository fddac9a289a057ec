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
# Table 6 of the paper on CIFAR-10 at 64 x 64, 1,000 images per class: k = 1, 2 and 3 as released, at width 0.25. On ImageNet the
# paper finds k = 2 better than k = 1 by 1.0 point, and better than k = 3 by 1.1. These two comparisons were frozen as primary before
# the first run, with a margin of 1 point: each is judged higher, lower or equivalent.

# %% tags=["parameters"]
source = "."  # or "../runs", a CSV file, "wandb:ENTITY/PROJECT"

# %%
from hbo.analysis import figures, results, study, tables

it = study.read("table6_cifar10", source=source)
it.table()

# %%
tables.paper_table(6, results.load(source, "table6_cifar10"))

# %%
figures.accuracy(it, "k")

# %%
it.differences()

# %% [markdown]
# ## Verdict

# %%
it.verdict()

# %% [markdown]
# The release changes three things at once between k = 1 and the others (claims.yaml names them).
#
# ## Details
#
# Cost and learning curves.

# %%
figures.accuracy_cost(it)

# %%
figures.runtimes(it)  # each arm in its quickest runtime, float and int8: measured for seed 0

# %%
figures.learning_curves(it)

# %%
it.provenance()
