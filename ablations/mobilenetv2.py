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
# # How good is MobileNetV2 at the multiply-adds of table 6?
#
# The control of the other studies: MobileNetV2 at the width nearest to 44.1 M multiply-adds (224 x 224, 1000
# classes), compared with HBONet with one, two and three contraction units.

# %% tags=["parameters"]
source = "."  # or "../runs", a CSV file, "wandb:ENTITY/PROJECT"

# %%
from hbo.analysis import figures, study

it = study.read("mobilenetv2", "contraction", source=source, baseline="mobilenetv2")
it.table()

# %%
figures.accuracy_cost(it)

# %%
figures.accuracy_cost(it, "latency_ms")

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
it.provenance()
