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
# # The paper's tables
#
# Published values beside counted costs and measured metrics. A dash is a missing value. The paper's accuracies need
# ImageNet, PASCAL VOC and Market-1501; results on other data have columns of their own.

# %% tags=["parameters"]
source = "../../ablations"  # or "../../runs", a CSV file, "wandb:ENTITY/PROJECT"

# %%
from hbo.analysis import claims, results
from hbo.analysis.tables import Markdown, paper_table

rows = results.load(source)
paper_table(1)

# %%
paper_table(2, rows)

# %%
paper_table(3, rows)

# %%
paper_table(4, rows)

# %%
paper_table(5, rows)

# %%
paper_table(6, rows)

# %%
paper_table(7, rows)

# %% [markdown]
# ## Detection
#
# The whole detector is counted, with separable heads. BCCD's blood cells, from random weights
# ([notebook](../../ablations/detection_bccd.ipynb)) and from a classifier
# ([notebook](../../ablations/detection_bccd_transfer.ipynb)), have columns of their own.

# %%
paper_table(8, rows)

# %% [markdown]
# ## Re-identification
#
# The feature extractor is counted, at 256 x 128. COIL-20's objects ([notebook](../../ablations/reid_coil20.ipynb)) and
# Omniglot's characters ([notebook](../../ablations/reid_omniglot.ipynb)) have columns of their own.

# %%
paper_table(9, rows)

# %% [markdown]
# ## The claims

# %%
verdicts = claims.check(rows)
Markdown(claims.totals(verdicts).replace("\n", "  \n"))

# %%
claims.table([v for v in verdicts if v.kind == "comparison"])

# %%
claims.table([v for v in verdicts if v.word != "not run" and v.kind != "comparison"])

# %% [markdown]
# ## Where paper, release and count disagree

# %%
print(claims.disagreements())
