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
# # Which recipe lets table 6's network find defective cells?
#
# The recipe of the default data set, elpv: how it was tuned on a fifth of the training images, and its results on the validation
# images. [LOG.md](LOG.md) has the interpretation and the decision.

# %% tags=["parameters"]
source = "."  # or "../runs", a CSV file, "wandb:ENTITY/PROJECT"

# %%
from hbo.analysis import results
from hbo.analysis.tables import Table

Table(
    "Tried on held-out training images, one seed each", results.summary(results.load(source, "elpv_tuning"))
)

# %%
Table("The recipe, on the validation images", results.summary(results.load(source, "elpv_recipe")))
