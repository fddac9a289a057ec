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
# # What is the effect of k alone?
#
# The release treats k = 1 differently from the rest (a ReLU6, the residual and the last depthwise convolution at stride 2).
# Here every k is treated alike. k = 0 contracts nothing: a control that the paper lacks, with more multiply-adds.

# %% tags=["parameters"]
source = "."  # or "../runs", a CSV file, "wandb:ENTITY/PROJECT"

# %%
from hbo.analysis import figures, study

it = study.read("contraction_uniform", source=source)
it.table()

# %%
figures.accuracy(it, "k")

# %%
figures.accuracy_cost(it)

# %%
it.differences()

# %% [markdown]
# ## Verdict

# %%
it.verdict()

# %% [markdown]
# ## Details

# %%
it.differences("balanced_accuracy")

# %%
it.images()

# %%
figures.learning_curves(it)

# %%
it.provenance()
