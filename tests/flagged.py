"""Flags from fields, so that a test's set-up reads like a run."""


def flags(**fields: object) -> list[str]:
    """`flags(k=2, lr=0.1)` is ["--k=2", "--lr=0.1"]."""
    return [f"--{name}={value}" for name, value in fields.items()]
