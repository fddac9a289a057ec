"""What `hbo.export` adds to a runtime's own work: the check on real images, metadata, model cards, a phone's
benchmark.
"""
