"""python -m hbo.bench train|infer|data: what is fast, beside what, measured in turns in one run."""
