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
# # The paper's figures
#
# Figure 1 shows the published table, and rows with the paper's protocol, if any. Figures 2 to 4 are drawn from the modules
# themselves, so a switch changes the picture.

# %% tags=["parameters"]
source = "../../ablations"  # or "../../runs", a CSV file, "wandb:ENTITY/PROJECT"

# %%
from hbo.analysis import diagrams, figures, results
from hbo.block import Block
from hbo.config import resolve

rows = results.load(source)

# %% [markdown]
# Figure 1: top-1 against multiply-adds, with HBONet's gain over MobileNetV2 below. The paper's caption says five widths;
# its table 2 has six. `figures.by_budget(rows)` draws the same for any data set.

# %%
figures.figure1(rows)

# %% [markdown]
# Figure 2: MobileNetV2's bottleneck, and the harmonious bottleneck.

# %%
diagrams.figure2()

# %% [markdown]
# Figure 3: the inverted residual and the harmonious bottleneck, each at strides 1 and 2. With k = 1 the release omits the
# residual and the last convolution at stride 2.

# %%
diagrams.figure3()

# %% [markdown]
# The same with `scheme="uniform"`, which treats every k and stride alike.

# %%
diagrams.figure3(Block(scheme="uniform"))

# %% [markdown]
# Figure 4: one, two and three contraction units in sequence.

# %%
diagrams.figure4()

# %% [markdown]
# Another block: bilinear upsampling, a quarter of the channels concatenated, no residual.

# %%
diagrams.figure3(Block(k=2, upsample="bilinear", concat_ratio=0.25, residual=False))

# %% [markdown]
# ## The multiply-adds of each part
#
# Table 6's networks stage by stage; and beside MobileNetV2 at the same multiply-adds, by the size of the map.

# %%
ours = {f"HBONet k={k}": resolve(data="imagenet", width=0.25, divisor=8, k=k) for k in (1, 2, 3)}
figures.stage_costs(ours)

# %%
figures.resolution_costs(
    {**ours, "MobileNetV2": resolve(data="imagenet", net="mobilenetv2", match_macs=44.1)}
)
