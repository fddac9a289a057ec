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
# # Which features retrieve objects seen from other sides?
#
# HBONet and MobileNetV2 of width 0.25 and ResNet-50, from random weights, on COIL-20's turntable in Market-1501's layout: table 9's
# comparison without Market-1501 and ImageNet. Ten objects are for training, eight others for retrieval, with 48 queries; each sixth of the
# turn is a camera. The primary metric is mAP; rank-1 is also shown.

# %% tags=["parameters"]
source = "."  # or "../runs", a CSV file, "wandb:ENTITY/PROJECT"

# %%
from hbo.analysis import figures, floors, study

it = study.read("reid_coil20", source=source, metric="map")
it.table()

# %% [markdown]
# ## The floor: untrained features

# %%
floors.table("reid_coil20_floors.csv")

# %%
it.differences()

# %% [markdown]
# ## Verdict
#
# Read it beside the floor: both small networks retrieve worse than their own untrained features, so "higher" says which of them
# training harmed less.

# %%
it.verdict()

# %% [markdown]
# ## Details

# %%
it.differences("rank1")

# %%
figures.learning_curves(it, "val/map")

# %%
it.provenance()
