"""python -m hbo.bench train|infer|data: speed against baselines, measured in turns in one run."""
