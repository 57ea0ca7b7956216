"""What the stages need from the world, as plain nouns; `adapters` say how, `wiring` says which."""
