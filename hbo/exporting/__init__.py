"""What `hbo.export` writes beside a runtime's own work: the check on real images, the facts, model cards, a
phone's benchmark.
"""
