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
# # Which network is better at retrieving unseen characters?
#
# HBONet and MobileNetV2 of width 0.25, from a classifier of CIFAR-10 (one of each network, for all seeds) and from random weights:
# table 9's comparison without Market-1501 and ImageNet. 136 characters are for training, 106 of other alphabets for retrieval; each
# person who drew them is a camera. The primary metric is mAP; rank-1 is also shown. In the tables an arm with `backbone=` starts from a
# classifier, one that is only a network's name from random weights.

# %% tags=["parameters"]
source = "."  # or "../runs", a CSV file, "wandb:ENTITY/PROJECT"

# %%
from hbo.analysis import figures, floors, study

it = study.read("reid_omniglot", source=source, metric="map")
it.table()

# %% [markdown]
# ## The floor: untrained features

# %%
floors.table("reid_omniglot_floors.csv")

# %%
it.differences()

# %% [markdown]
# ## Verdict

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
