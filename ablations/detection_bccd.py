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
# # Which backbone is better for SSD on few photographs?
#
# HBONet and MobileNetV2 of width 0.25 under the same SSD, from random weights, on BCCD's 292 photographs of blood cells: table
# 8's comparison without ImageNet and VOC. The primary metric is VOC 2007's mAP (11 points, IoU 0.5); COCO's is also shown.

# %% tags=["parameters"]
source = "."  # or "../runs", a CSV file, "wandb:ENTITY/PROJECT"

# %%
from hbo.analysis import figures, study

it = study.read("detection_bccd", source=source, metric="map")
it.table()

# %%
it.differences()

# %% [markdown]
# ## Class by class
#
# Average precision of each class. Platelets are the small objects.

# %%
from hbo.analysis.detections import per_class

per_class(it.done)

# %% [markdown]
# ## Verdict

# %%
it.verdict()

# %% [markdown]
# ## Details

# %%
it.differences("map_area")

# %%
figures.learning_curves(it, "val/map")

# %%
it.provenance()
