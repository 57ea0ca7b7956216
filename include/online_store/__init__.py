"""The online store of aggregates: `<model>.data` and a stream of outcomes write to it, the model servers read it."""
