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
# # What does pairing by seed buy?
#
# Studies often compare two networks seed by seed: both get the same seed, and the test is of the differences. That pays if the results of a
# seed are correlated over the networks. Are they? A seed draws the first weights, the order of the images and the augmentation. Here are
# two arms of one network (k = 1 and 2) and two networks (HBONet and MobileNetV2), on 8 x 8 digits, five epochs a run.

# %% tags=["parameters"]
source = "."  # or "../runs", a CSV file, "wandb:ENTITY/PROJECT"

# %%
from hbo.analysis import pairing, study

it = study.read("pairing", source=source)
it.table()

# %% [markdown]
# ## Power, and false positives
#
# Studies of 3 to 24 seeds are drawn from the runs. Above: how often a difference of one standard deviation of a run is found, two-sided at
# 5 %; below: how often one is found where there is none. "Chosen" is what `hbo.analysis.study` does: it pairs only if the seeds explain
# a part of the variance for certain (p at most 0.01). The seeds are drawn with replacement from those that were run.

# %%
samples = it.samples()
ones = {"one network": ("hbonet k=1", "hbonet k=2"), "two networks": ("hbonet k=1", "mobilenetv2")}
pairs = {title: tuple(samples[arm] for arm in arms) for title, arms in ones.items()}
pairing.drawn(pairs)

# %%
pairing.table(pairs)

# %% [markdown]
# ## The study's own question

# %%
it.verdict()

# %%
it.provenance()
