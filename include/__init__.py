"""Perennial: keeps a model in production fresh. `docs/architecture.md` says what lies where."""
