"""Pure decisions: values in, a verdict out. No I/O, no clock, no framework."""
