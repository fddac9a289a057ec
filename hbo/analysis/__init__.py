"""From rows to tables."""
