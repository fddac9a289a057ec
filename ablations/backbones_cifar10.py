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
# # CIFAR-10 classifiers as initial weights of detectors
#
# One HBONet and one MobileNetV2 of width 0.25, trained on 1,000 images per class at 64 x 64, with one run each. They are not compared:
# they are the initial weights of [the detection study](detection_bccd_transfer.ipynb).

# %% tags=["parameters"]
source = "."  # or "../runs", a CSV file, "wandb:ENTITY/PROJECT"

# %%
from hbo.analysis import figures, study

it = study.read("backbones_cifar10", source=source)
it.table()

# %%
figures.learning_curves(it, "val/top1")

# %%
it.provenance()
