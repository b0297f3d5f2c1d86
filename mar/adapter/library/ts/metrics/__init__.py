"""Names that handlers use for their metrics."""
