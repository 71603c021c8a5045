"""Names of files in a run folder, for readers that do not need Lightning."""

CONFIG = "config.yaml"
METRICS = "metrics.jsonl"
