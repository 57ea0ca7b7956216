"""The online store: what `<model>.data` and the stream of outcomes write, and what the model servers read."""
