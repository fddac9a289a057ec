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
# Published beside what the networks cost, counted here and now, and what was measured. A dash is an absent cell. No accuracy
# of the paper is measured without ImageNet, PASCAL VOC and Market-1501; what other data say stands in a column of its own.

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
# The whole detector is counted, with the separable heads that the table needs. What other photographs say (BCCD's blood cells,
# from random weights: [its notebook](../../ablations/detection_bccd.ipynb)) stands in a column of its own.

# %%
paper_table(8, rows)

# %% [markdown]
# ## Re-identification
#
# What makes a feature is counted, at 256 x 128. What COIL-20's turntable says, from random weights
# ([its notebook](../../ablations/reid_coil20.ipynb)), stands in a column of its own.

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
