"""The embedded stack: everything on one machine, from one Procfile."""
