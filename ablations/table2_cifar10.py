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
# # Is HBONet better than MobileNetV2, and most so in small networks?
#
# Four pairs of table 2 on CIFAR-10 at 64 x 64, 1,000 images per class, at equal multiply-adds (within 4 %). The question was frozen
# before the first run: the mean gain of HBONet over the four budgets (primary), its trend over the multiply-adds ("larger as the budget
# shrinks"), and the four gains.

# %% tags=["parameters"]
source = "."  # or "../runs", a CSV file, "wandb:ENTITY/PROJECT"

# %%
from hbo.analysis import figures, study

it = study.read("table2_cifar10", source=source)
it.table()

# %%
it.differences()

# %%
figures.by_budget(it.done)

# %%
figures.learning_curves(it)

# %% [markdown]
# ## Verdict

# %%
it.verdict()

# %%
it.provenance()
